"""A small model for every layer that a recipe may use. A row is six words, the last of which may be 0: nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import embedding, linear

PLACES, WORDS, CLASSES = 6, 11, 3


class Net(nn.Module):
    """Layers by name, and what is done with them."""

    def __init__(self, act: Callable[[Net, torch.Tensor], torch.Tensor], **layers: nn.Module | nn.Parameter):
        super().__init__()
        self.act = act
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.act(self, x)


def words(**layers):
    """Of whole numbers: (1, places) to (1, places, 8)."""
    return {"embed": nn.Embedding(WORDS, 8), **layers, "out": nn.Linear(8, CLASSES)}


def recurrent(kind, sizes, width, layers=1, both_ways=False, **how):
    layer = kind(*sizes, num_layers=layers, bidirectional=both_ways, batch_first=True, **how)
    return Net(lambda m, x: m.out(m.cell(m.embed(x))[0][:, -1]), embed=nn.Embedding(WORDS, 8), cell=layer,
               out=nn.Linear(width, CLASSES))


def twice(m, x):
    return m.out(m.inner(torch.tanh(m.inner(m.embed(x)))).mean(1))


def tied(m, x):
    h = torch.tanh(m.inner(m.embed(x)))
    return linear(h.mean(1), m.embed.weight)[:, :CLASSES]


def tied_twice(m, x):
    """The table is a matrix, too, and is taken as a number."""
    return tied(m, x) * m.embed.weight.square().sum() + m.bias


def attends(m, x):
    h = m.embed(x)
    return m.out(m.norm(h + m.attend(h, h, h, need_weights=False)[0]).mean(1))


def attends_with_mask(m, x):
    h, gone = m.embed(x), x == 0
    return m.out(m.attend(h, h, h, key_padding_mask=gone)[0].masked_fill(gone[:, :, None], 0).sum(1))


def crosses(m, x):
    h = m.embed(x)
    return m.out(m.attend(h[:, :1], m.more(h), h)[0][:, 0])


def encodes(m, x):
    gone = x == 0
    h = m.encode(m.embed(x) + m.place(torch.arange(PLACES)), src_key_padding_mask=gone)
    return m.out(h.masked_fill(gone[:, :, None], 0).sum(1))


def causal(m, x):
    h = m.embed(x)
    return m.out(m.layer(h, src_mask=nn.Transformer.generate_square_subsequent_mask(PLACES), is_causal=True)[:, -1])


def lookup(m, x):
    return m.out(embedding(x, m.embed.weight * 2).mean(1))


def picture(m, x):
    return m.out(torch.relu(m.conv(m.embed(x)[:, None])).flatten(1)[:, :20])


def pictures_of_one_row(m, x):
    """Its places are pictures of their own."""
    return m.out(m.conv(m.embed(x).reshape(-1, 2, 2, 2)).reshape(len(x), -1)[:, :20])


def encoder_layer(**how):
    return nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True, **how)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: Net(lambda m, x: m.out(torch.tanh(m.embed(x).flatten(1))), embed=nn.Embedding(WORDS, 8),
                          out=nn.Linear(8 * PLACES, CLASSES)),
    "no bias": lambda: Net(lambda m, x: m.out(m.embed(x).sum(1)), embed=nn.Embedding(WORDS, 8),
                           out=nn.Linear(8, CLASSES, bias=False)),
    "places": lambda: Net(lambda m, x: m.out(torch.tanh(m.inner(m.embed(x))).mean(1)), **words(inner=nn.Linear(8, 8))),
    "twice": lambda: Net(twice, **words(inner=nn.Linear(8, 8))),
    "bilinear": lambda: Net(lambda m, x: m.two(m.embed(x)[:, 0], m.embed(x)[:, 1]), embed=nn.Embedding(WORDS, 8),
                            two=nn.Bilinear(8, 8, CLASSES)),
    "padding": lambda: Net(lambda m, x: m.out(m.embed(x).mean(1)), embed=nn.Embedding(WORDS, 8, padding_idx=0),
                           out=nn.Linear(8, CLASSES)),
    "bag": lambda: Net(lambda m, x: m.out(m.bag(x)), bag=nn.EmbeddingBag(WORDS, 8, mode="sum"), out=nn.Linear(8, CLASSES)),
    "a table that is computed": lambda: Net(lookup, **words()),
    "convolution 1d": lambda: Net(lambda m, x: m.out(m.conv(m.embed(x).transpose(1, 2)).mean(2)),
                                  **words(conv=nn.Conv1d(8, 8, 3, padding="same", dilation=2))),
    "even and same": lambda: Net(lambda m, x: m.out(m.conv(m.embed(x).transpose(1, 2)).tanh().mean(2)),
                                 **words(conv=nn.Conv1d(8, 8, 2, padding="same"))),
    "convolution 2d": lambda: Net(picture, embed=nn.Embedding(WORDS, 8), conv=nn.Conv2d(1, 4, (2, 3), (2, 1), (1, 0)),
                                  out=nn.Linear(20, CLASSES)),
    "groups": lambda: Net(lambda m, x: m.out(m.conv(m.embed(x).transpose(1, 2)).mean(2)),
                          **words(conv=nn.Conv1d(8, 8, 3, groups=4, bias=False))),
    "reflected": lambda: Net(picture, embed=nn.Embedding(WORDS, 8),
                             conv=nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"), out=nn.Linear(20, CLASSES)),
    "convolution 3d": lambda: Net(lambda m, x: m.out(m.conv(m.embed(x).reshape(1, 2, 3, 2, 4)).flatten(1)[:, :8]),
                                  **words(conv=nn.Conv3d(2, 3, 2, padding=1))),
    "transposed": lambda: Net(lambda m, x: m.out(m.conv(m.embed(x).transpose(1, 2)).mean(2)),
                              **words(conv=nn.ConvTranspose1d(8, 8, 3, stride=2))),
    "pictures of one row": lambda: Net(pictures_of_one_row, embed=nn.Embedding(WORDS, 8), conv=nn.Conv2d(2, 4, 2),
                                       out=nn.Linear(20, CLASSES)),
    "layer norm": lambda: Net(lambda m, x: m.out(m.norm(m.embed(x)).tanh().mean(1)), **words(norm=nn.LayerNorm(8))),
    "group norm": lambda: Net(lambda m, x: m.out(m.norm(m.embed(x).transpose(1, 2)).tanh().mean(2)),
                              **words(norm=nn.GroupNorm(2, 8))),
    "rms norm": lambda: Net(lambda m, x: m.out(m.norm(m.embed(x)).tanh().mean(1)), **words(norm=nn.RMSNorm(8))),
    "prelu": lambda: Net(lambda m, x: m.out(m.bend(m.embed(x)).mean(1)), **words(bend=nn.PReLU(1))),
    "weight norm": lambda: Net(lambda m, x: m.out(m.inner(m.embed(x)).tanh().mean(1)),
                               **words(inner=nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)))),
    "lstm": lambda: recurrent(nn.LSTM, (8, 5), 5),
    "lstm, deep, both ways": lambda: recurrent(nn.LSTM, (8, 4), 8, layers=2, both_ways=True),
    "lstm without bias": lambda: recurrent(nn.LSTM, (8, 5), 5, bias=False),
    "gru": lambda: recurrent(nn.GRU, (8, 5), 5),
    "gru, deep, both ways": lambda: recurrent(nn.GRU, (8, 4), 8, layers=2, both_ways=True),
    "rnn": lambda: recurrent(nn.RNN, (8, 5), 5),
    "rnn, relu": lambda: recurrent(nn.RNN, (8, 5), 5, nonlinearity="relu"),
    "attention": lambda: Net(attends, **words(attend=nn.MultiheadAttention(8, 2, batch_first=True), norm=nn.LayerNorm(8))),
    "attention, mask": lambda: Net(attends_with_mask, **words(attend=nn.MultiheadAttention(8, 2, batch_first=True))),
    "attention, other keys": lambda: Net(crosses, more=nn.Linear(8, 4), **words(
        attend=nn.MultiheadAttention(8, 2, kdim=4, add_bias_kv=True, batch_first=True))),
    "encoder": lambda: Net(encodes, place=nn.Embedding(PLACES, 8), **words(
        encode=nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False))),
    "encoder, causal": lambda: Net(causal, **words(layer=encoder_layer(norm_first=True, activation="gelu"))),
    "tied": lambda: Net(tied, embed=nn.Embedding(WORDS, 8), inner=nn.Linear(8, 8)),
    "tied twice": lambda: Net(tied_twice, embed=nn.Embedding(WORDS, 8), inner=nn.Linear(8, 8),
                              bias=nn.Parameter(torch.ones(CLASSES))),
    "spare": lambda: Net(lambda m, x: m.out(m.embed(x).mean(1)), **words(spare=nn.Linear(3, 3))),
}


def built(kind: str) -> nn.Module:
    torch.manual_seed(3)
    return MODELS[kind]()


def drawn(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Words, (rows, places), and classes, (rows,)."""
    generator = torch.Generator().manual_seed(4)
    x_BP = torch.randint(1, WORDS, (rows, PLACES), generator=generator)
    x_BP[:, -2:][torch.arange(rows) % 2 == 1] = 0          # some are shorter, and some words occur twice
    x_BP[0, 1] = x_BP[0, 0]
    return x_BP, torch.arange(rows) % CLASSES
