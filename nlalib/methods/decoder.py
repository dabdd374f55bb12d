"""Decoder: label embeddings ask the image's tokens, and their answers settle the candidates.

A re-interpretation of Wang et al., "Rethinking the Learning Paradigm for FER"
(arXiv 2209.15402): known to us are its parts (a transformer decoder over learnable label
embeddings, whose probabilities of the candidates become the targets of disambiguation, and a
uniform regularisation of the embeddings), not its equations. Ours, with tokens x_1..x_T from the
feature map, embeddings e_c of the K classes, and the candidate set S:

    a_c = LN(e_c + CrossAttention(query e_c, keys and values x_t))
    d_c = LN(a_c + MLP(a_c))
    z_c = w . d_c + b                                    one w and b for all classes
    L   = - sum_{c in S} q_c log softmax(z)_c + uniformity U
    q_c <- m q_c + (1 - m) p_c / sum_{S} p               after the loss; uniform over S at first
    U   = log mean_{i < j} exp(-2 |u_i - u_j|^2),    u = e / |e|

U is the uniformity of Wang and Isola, ICML 2020, with their t = 2, over the classes instead of
over samples; it is least where the embeddings form a regular simplex. Without the decoder, z is
the network's own linear head, and the embeddings are the rows of its weight; then m = 0 and
uniformity 0 is PRODEN.

One candidate gives the cross-entropy of z (plus U, which knows no sample). With all classes as
candidates and m = 0 the gradient vanishes where the prediction stands still, as PRODEN's.
"""

import math

import torch
from torch import Tensor, nn

from nlalib.methods.base import ModelOutput, TrainingSet, register
from nlalib.methods.recorded import prediction_records
from nlalib.methods.settings import Setting
from nlalib.methods.targets import StoredTargets, probabilities_within

_TEMPERATURE = 2.0  # t of Wang and Isola


def uniformity_loss(embeddings: Tensor) -> Tensor:
    """Return U, a scalar from -4 K / (K - 1) (a regular simplex) to 0 (all alike).

    Parameters
    ----------
    embeddings : Tensor, (K, D) float, K at least 2 and D at least K - 1 for the lowest value
    """
    directions = nn.functional.normalize(embeddings.float(), dim=1)
    number = len(embeddings)
    # Made where it is used: a copy to a card would wait for it, and could not be recorded.
    first, second = torch.triu_indices(number, number, 1, device=embeddings.device)
    squared = 2 - 2 * (directions[first] * directions[second]).sum(dim=1)
    return (-_TEMPERATURE * squared).logsumexp(dim=0) - math.log(len(first))


class LabelDecoder(nn.Module):
    """One layer of cross-attention from label embeddings, (K, D), to tokens."""

    def __init__(self, width: int, num_classes: int, heads: int):
        super().__init__()
        self.label_embeddings = nn.Parameter(torch.randn(num_classes, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_attended = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.norm_decoded = nn.LayerNorm(width)
        self.score = nn.Linear(width, 1)

    def forward(self, feature_map: Tensor) -> Tensor:
        """Return z, (N, K) float32, from a feature map, (N, D, h, w)."""
        # Not normalised one by one: how large a token is says where the network sees something.
        tokens = feature_map.flatten(2).transpose(1, 2)  # (N, h w, D)
        queries = self.label_embeddings.expand(len(tokens), -1, -1)  # (N, K, D)
        attended, _ = self.attention(queries, tokens, tokens, need_weights=False)
        attended = self.norm_attended(queries + attended)
        decoded = self.norm_decoded(attended + self.mlp(attended))
        return self.score(decoded).squeeze(2).float()


@register("decoder")
class Decoder(StoredTargets):
    """Mean of L, judged by z.

    Records: `identified`, the candidate with the highest target, `disambiguated`, whether it is
    the given label, and predictions by z.

    Parameters
    ----------
    uniformity : float
        Weight of U, 0 or more.
    decoder : bool
        False takes the network's linear head, with the same disambiguation.
    momentum : float
        m, from 0 to below 1. After n epochs the share m^n of the uniform target is left: long
        runs can afford a larger one.
    heads : int
        Heads of the attention; they divide the width D of the feature map.
    """

    uniformity: float = Setting(0.1)
    decoder: bool = Setting(True)
    momentum: float = Setting(0.5, 0, 1, without=(1,))
    heads: int = Setting(4, 1)

    def check(self) -> None:
        if self.heads != 4 and not self.decoder:
            raise ValueError(
                f"heads of decoder is {self.heads}, but decoder=False has none; leave it"
            )

    def setup(self, training_set: TrainingSet) -> None:
        super().setup(training_set)
        width = training_set.num_features
        if not self.decoder:
            return
        if width % self.heads:
            raise ValueError(f"heads of decoder is {self.heads}, which does not divide D = {width}")
        self.label_decoder = LabelDecoder(width, training_set.num_classes, self.heads)

    def forward(self, output: ModelOutput):
        logits = self.predict(output)
        stored = self.targets[output.samples]
        within = probabilities_within(logits, output.candidates)
        averaged = self.momentum * stored + (1 - self.momentum) * within
        loss, records = self.learn(logits, output, averaged)
        if self.uniformity:
            network = {"fc.weight": output.classifier.weight}
            vectors = self.class_vectors(network, dict(self.named_parameters()))
            loss = loss + self.uniformity * uniformity_loss(vectors)
        return loss, {**records, **prediction_records(logits, output.labels)}

    def predict(self, output: ModelOutput) -> Tensor:
        return self.label_decoder(output.feature_map) if self.decoder else output.logits

    def class_vectors(self, network, own):
        if self.decoder:
            return own["label_decoder.label_embeddings"]
        return super().class_vectors(network, own)
