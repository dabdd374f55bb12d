"""The data sets by name; one file each holds all that is special about its set."""

from nlalib.data.sets.affectnet import AffectNet
from nlalib.data.sets.base import DataSet
from nlalib.data.sets.ferplus import FERPlus
from nlalib.data.sets.rafdb import RAFDB
from nlalib.data.sets.rendered import RenderedFaces

SETS: dict[str, DataSet] = {
    data_set.name: data_set for data_set in (RenderedFaces(), FERPlus(), RAFDB(), AffectNet())
}
