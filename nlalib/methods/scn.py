"""SCN: attention weights, ranked in the batch, and relabelling.

Source: Wang et al., "Suppressing Uncertainties for Large-Scale Facial Expression Recognition",
CVPR 2020. With features x, a linear layer W and the classifier FC:

    alpha = sigmoid(W x)                                  attention, one number a sample
    z     = alpha FC(x)                                   logits, in training and in testing
    L     = CE(z, stored label) + L_RR
    L_RR  = max(0, 0.15 - (mean of the top 70 % of alpha in the batch - mean of the rest))

From some epoch on, P = softmax(z): where P_max - P_label > 0.2, the stored label becomes the
argmax, for good.

What differs here: our backbones and initial weights instead of a ResNet-18 from MS-Celeb-1M. The
original relabels from epoch 10 of runs of 40 to 70 epochs; our runs are shorter, so the start is
a share of the epochs, by default the 10/40 of its shorter runs. The paper relabels samples of the
lower group by attention; the authors' code (src/train.py at fb0ed12), and this file, any sample.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlalib.methods.base import Method, ModelOutput, TrainingSet, register
from nlalib.methods.recorded import prediction_records
from nlalib.methods.settings import Setting


def rank_regularisation(attention: Tensor, margin: float, high_share: float) -> Tensor:
    """Return L_RR, a scalar: by how much the two groups' mean attentions lie too close.

    Parameters
    ----------
    attention : Tensor, (N,) float
        Of at least two samples.
    margin : float
    high_share : float
        Share of the batch in the upper group, rounded so that neither group is empty.
    """
    samples = len(attention)
    high = min(max(round(high_share * samples), 1), samples - 1)
    ranked = attention.sort(descending=True).values
    return functional.relu(margin - (ranked[:high].mean() - ranked[high:].mean()))


@register("scn")
class SCN(Method):
    """Self-Cure Network.

    Its records: `attention` (and the same as `weight`, since it scales the logits), `stored_label`
    (a class id) and `relabelled` (1 where that is no longer the given one) as they are after the
    batch, and predictions by its own logits.

    Parameters
    ----------
    rank_margin, relabel_margin : float
        0.15 and 0.2 in the paper.
    high_share : float
        Share of the batch that is to have high attention; 0.7 in the paper.
    relabel_from : float
        Share of the epochs before relabelling begins. 0 from the first epoch, 1 never. The
        default stands for the original's epoch 10 of 40.
    """

    rank_margin: float = Setting(0.15, 0, 1)
    relabel_margin: float = Setting(0.2, 0, 1)
    high_share: float = Setting(0.7, 0, 1, without=(0, 1))
    relabel_from: float = Setting(0.25, 0, 1)
    keeps_samples = True
    detectors: ClassVar = {"weight": "low", "attention": "low"}

    def setup(self, training_set: TrainingSet) -> None:
        self.attention = nn.Linear(training_set.num_features, 1)
        self.register_buffer("stored_labels", training_set.labels.clone())

    def forward(self, output: ModelOutput):
        attention = self._attention(output)
        logits = attention[:, None] * output.logits
        loss = functional.cross_entropy(logits, self.stored_labels[output.samples])
        loss = loss + rank_regularisation(attention, self.rank_margin, self.high_share)
        if output.epoch >= self.relabel_from * output.epochs:
            self._relabel(logits.detach(), output.samples)
        stored = self.stored_labels[output.samples]
        records = {
            **prediction_records(logits, output.labels),
            "weight": attention.detach(),
            "attention": attention.detach(),
            "stored_label": stored.float(),
            "relabelled": (stored != output.labels).float(),
        }
        return loss, records

    def predict(self, output: ModelOutput) -> Tensor:
        return self._attention(output)[:, None] * output.logits

    def _attention(self, output: ModelOutput) -> Tensor:
        """Return alpha, (N,) float32, between 0 and 1."""
        return self.attention(output.features).float().squeeze(1).sigmoid()

    @torch.no_grad()
    def _relabel(self, logits: Tensor, samples: Tensor) -> None:
        """Change the stored labels that the network clearly contradicts."""
        stored = self.stored_labels[samples]
        highest, predicted = logits.softmax(dim=1).max(dim=1)
        p_label = logits.softmax(dim=1).gather(1, stored[:, None]).squeeze(1)
        contradicted = highest - p_label > self.relabel_margin
        self.stored_labels[samples] = torch.where(contradicted, predicted, stored)
