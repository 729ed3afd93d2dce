"""Flower's SecAgg+ on the work of benchmarks/secure_sums.py; run by that file with an interpreter that has flwr 1.42.

    python benchmarks/flower_sums.py MEMBERS DROPOUTS SIZE

Prints CPU seconds and bytes as JSON. Its own functions are called, without messages, network or the training around them;
what the coordinator does is the loop of its workflow's `unmask_stage`.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np


def main(members: int, dropouts: int, size: int) -> dict[str, float]:
    from flwr.client.mod import secaggplus_mod  # noqa: F401 - brings the module, which has the function's name
    from flwr.common import ndarrays_to_parameters
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares
    from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_mod, parameters_subtraction
    from flwr.common.secure_aggregation.quantization import dequantize
    from flwr.common.secure_aggregation.secaggplus_constants import Key
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    site = sys.modules["flwr.client.mod.secure_aggregation.secaggplus_mod"]
    names = list(range(1, members + 1))
    agreed = {Key.SAMPLE_NUMBER: members, Key.SHARE_NUMBER: members, Key.THRESHOLD: members - dropouts,
              Key.CLIPPING_RANGE: 8.0, Key.TARGET_RANGE: 1 << 22, Key.MOD_RANGE: 1 << 32, Key.MAX_WEIGHT: 1000.0}
    states = {name: site.SecAggPlusState(nid=name) for name in names}
    keys = {name: site._setup(states[name], agreed) for name in names[1:]}
    before = time.process_time()
    keys[1] = site._setup(states[1], agreed)
    pairs = {str(name): (keys[name][Key.PUBLIC_KEY_1], keys[name][Key.PUBLIC_KEY_2]) for name in names}
    sent = {1: site._share_keys(states[1], pairs)}
    set_up = time.process_time() - before
    sent |= {name: site._share_keys(states[name], pairs) for name in names[1:]}

    def received(me: int) -> dict:
        boxes = [(name, box) for name in names if name != me for to, box in zip(
            sent[name][Key.DESTINATION_LIST], sent[name][Key.CIPHERTEXT_LIST], strict=True) if to == me]
        return {Key.SOURCE_LIST: [name for name, _ in boxes], Key.CIPHERTEXT_LIST: [box for _, box in boxes]}

    numbers = ndarrays_to_parameters([np.random.default_rng(0).normal(size=size).astype(np.float32)])
    mine = received(1)
    before = time.process_time()
    masked = site._collect_masked_vectors(states[1], mine, 100, numbers)
    mask = time.process_time() - before

    small = ndarrays_to_parameters([np.zeros(1, np.float32)])
    for name in names[1:]:
        site._collect_masked_vectors(states[name], received(name), 100, small)
    active, dead = names[:members - dropouts], names[members - dropouts:]
    asked = {Key.ACTIVE_NODE_ID_LIST: active, Key.DEAD_NODE_ID_LIST: dead}
    before = time.process_time()
    said = {1: site._unmask(states[1], asked)}
    reveal = time.process_time() - before
    said |= {name: site._unmask(states[name], asked) for name in active[1:]}
    vector = [np.zeros(size, np.int64)]
    before = time.process_time()
    for place, name in enumerate(active + dead):
        secret = combine_shares([said[one][Key.SHARE_LIST][place] for one in active])
        if name in active:
            vector = parameters_subtraction(vector, pseudo_rand_gen(secret, 1 << 32, [(size,)]))
            continue
        for other in names:
            if other != name:
                shared = site.generate_shared_key(site.bytes_to_private_key(secret),
                                                  site.bytes_to_public_key(pairs[str(other)][0]))
                change = parameters_addition if name > other else parameters_subtraction
                vector = change(vector, pseudo_rand_gen(shared, 1 << 32, [(size,)]))
    dequantize(parameters_mod(vector, 1 << 32), 8.0, 1 << 22)
    unmask = time.process_time() - before
    return {"set up": set_up, "mask": mask, "reveal": reveal, "unmask": unmask,
            "set up bytes": sum(map(len, keys[1].values())) + sum(map(len, sent[1][Key.CIPHERTEXT_LIST])),
            "mask bytes": sum(map(len, masked[Key.MASKED_PARAMETERS])),
            "reveal bytes": sum(map(len, said[1][Key.SHARE_LIST]))}


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))
