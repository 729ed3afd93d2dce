"""The agents' example: physics as gymnasium has them, the policy's gradient as two loops have it, and what a row can do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from torch import nn

from benchmarks.agents import in_gymnasium
from fedround.errors import ContractError
from fedround.learning.batch import batch_of
from fedround.learning.evaluate import scores
from fedround.learning.gradients import Clip, RowGradients, clipped_sum
from fedround.learning.objective import Objective
from fedround.learning.recipe import initial_tensors, load_recipe
from fedround.learning.tasks import Maximise
from fedround.privacy.noise import FINE
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site
from fedround_examples.cartpole import recipe as example
from fedround_examples.cartpole.split import HERE, SITES, STORY, split
from validation.contract import load_contract
from validation.judging import judge_frame

CLIP = Clip(0.1, 0.1 / FINE)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rows():
    return STORY.recipe().encode(split().public_test)


def model_of(seed: int) -> example.Agent:
    torch.manual_seed(seed)
    return example.build_model()


def test_episodes_meet_the_contract_and_impossible_ones_do_not():
    parts, contract = split(), load_contract(HERE / "contract.json")
    assert [site.name for site in parts.banks] == list(SITES)
    assert parts.public_test.equals(split().public_test)
    for site in parts.banks[:2]:
        assert judge_frame(site.train, contract).failed(contract) == ()
    assert judge_frame(parts.public_test.assign(force=-1.0), contract).failed(contract) == ("force_in_range",)


def test_cart_and_pole_move_as_in_gymnasium(rows):
    drawn = np.random.default_rng(0)
    for half_length, pole_mass, force, *begin in rows.inputs["x"][::16].tolist():
        world, cart = CartPoleEnv(), example.Cart(*torch.tensor([[half_length], [pole_mass], [force]], dtype=torch.float64))
        world.reset(seed=0)
        world.length, world.masspole, world.force_mag = half_length, pole_mass, force
        world.total_mass, world.polemass_length = world.masscart + pole_mass, pole_mass * half_length
        world.state, state = np.array(begin), tuple(torch.tensor([begin], dtype=torch.float64).unbind(1))
        for _ in range(12):
            right = int(drawn.integers(2))
            seen, _, fallen, _, _ = world.step(right)
            state = cart.moved(state, torch.tensor([2.0 * right - 1]))
            assert torch.stack(state, 1)[0].numpy() == pytest.approx(seen, abs=1e-5)
            beyond = abs(float(state[0])) > example.FARTHEST or abs(float(state[2])) > example.STEEPEST
            assert fallen == beyond
            if fallen:
                break


def test_a_policy_lasts_as_long_as_in_gymnasium(rows):
    recipe = STORY.recipe()
    for seed in range(3):
        model = initial_tensors(recipe, seed)
        assert scores(recipe, model, rows)["score"] == pytest.approx(in_gymnasium(model, rows.inputs["x"].astype(float)))


def test_the_gradient_is_that_of_the_policy_as_two_loops_have_it(rows):
    """REINFORCE: what a push made likelier, times what came after it beyond the usual, over all pushes before the fall."""
    agent, x = model_of(1).train(), torch.from_numpy(rows.inputs["x"][:6])
    torch.manual_seed(5)
    seen, side, up = agent.played(x)
    torch.manual_seed(5)
    steps = agent(x)
    assert steps.tolist() == up.sum(1).tolist()
    for row in range(len(x)):
        found = torch.autograd.grad(steps[row], list(agent.parameters()), retain_graph=True)
        expected = np.zeros(5)
        lasted = int(up[row].sum())
        for step in range(lasted):
            later = sum(example.DISCOUNT ** (other - step) for other in range(step, lasted))
            if lasted == example.STEPS:
                later += example.DISCOUNT ** (lasted - step) / (1 - example.DISCOUNT)
            likely = torch.sigmoid(side[row, step] * (seen[row, step] @ agent.policy.weight[0] + agent.policy.bias[0])).item()
            slope = side[row, step].item() * (1 - likely)
            expected += slope * (later - example.USUAL) * np.array([*seen[row, step].tolist(), 1.0])
        assert torch.cat([part.ravel() for part in found]).numpy() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_what_is_judged_is_the_same_again_and_in_any_company(rows):
    recipe, model = STORY.recipe(), initial_tensors(STORY.recipe(), 2)
    told = scores(recipe, model, rows)["score"]
    assert np.array_equal(told, scores(recipe, model, rows)["score"])
    assert np.array_equal(told[:3], scores(recipe, model, rows.at(slice(0, 3)))["score"])
    assert len(set(told.tolist())) > 3


@pytest.mark.parametrize("wild", [[0.0] * 7, [1e-30, 1e30, 1e30, 0, 0, 0, 0], [1, 1, 1, 1e30, -1e30, 1e30, 1e30]])
def test_attack_no_episode_moves_the_sum_by_more_than_the_clip_norm(rows, wild):
    recipe = STORY.recipe()
    objective = Objective(model_of(3), recipe.task)
    parameters = {name: value.detach() for name, value in objective.model.named_parameters()}
    batch = batch_of(rows.at(slice(0, 8)))
    batch.inputs["x"][4] = torch.tensor(wild)
    of_rows, sums = RowGradients.tried(objective, parameters, batch), []
    assert of_rows.together
    for counts in (torch.ones(8, dtype=torch.bool), torch.arange(8) != 4):
        torch.manual_seed(7)
        sums.append(clipped_sum(of_rows, parameters, batch, CLIP, counts_B=counts)[0])
    assert np.linalg.norm((sums[0] - sums[1]).astype(float)) * CLIP.cell <= CLIP.norm


class Elsewhere(nn.Module):
    """Plays in gymnasium's environment itself, for a few steps."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = []
        for chance, row in zip(torch.rand(len(x), 8), x.detach().numpy().astype(float), strict=True):
            world, chosen = CartPoleEnv(), []
            seen, _ = world.reset(seed=0)
            world.force_mag, world.state = row[2], row[3:]
            for one in chance:
                logit = self.policy(torch.from_numpy(np.asarray(seen, np.float32)))[0]
                right = bool(one < logit.sigmoid())
                chosen.append(nn.functional.logsigmoid(logit if right else -logit))
                seen, *_ = world.step(int(right))
            surrogate = torch.stack(chosen).sum()
            found.append(8 + surrogate - surrogate.detach())
        return torch.stack(found)


def test_a_simulator_that_torch_cannot_map_is_played_row_by_row(rows):
    objective = Objective(Elsewhere(), Maximise(bounds=(0, 8)))
    parameters = {name: value.detach() for name, value in objective.model.named_parameters()}
    batch = batch_of(rows.at(slice(0, 3)))
    of_rows = RowGradients.tried(objective, parameters, batch)
    assert not of_rows.together
    summed, _ = clipped_sum(of_rows, parameters, batch, CLIP)
    assert 0 < np.linalg.norm(summed.astype(float)) * CLIP.cell <= 3 * CLIP.norm


def test_a_private_federation_keeps_every_sites_poles_upright(rows):
    recipe, encoded = STORY.recipe(), STORY.encoded()
    sites = {name: Site(own) for name, own in encoded.train.items()}
    model = simulate(STORY.settings(), recipe, sites, rounds=15, chance=Seeded(0), stacked=True).model
    assert scores(recipe, model, rows)["score"].mean() > 150


def test_a_recipe_whose_rows_have_no_labels_says_none(rows, tmp_path):
    assert not rows.targets["y"].any()
    said = (HERE / "recipe.py").read_text() + "\n\ndef labels(rows):\n    return rows['force']\n"
    (tmp_path / "recipe.py").write_text(said)
    with pytest.raises(ContractError, match="learns from rows without labels, and the recipe says labels; remove it"):
        load_recipe(tmp_path / "recipe.py")
