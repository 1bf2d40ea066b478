"""Sources of images and of sentences, and feeds that bring them to the device.

A source names a data set, its splits are `Examples`, and a feed turns them into batches:

    source = parse_source("digits")
    feed = open_feed(Data(source), source.split("train"), recipe, seed=0, mesh=mesh)
    inputs = feed.inputs(step=0, count=10)  # on the device, one row per step
    batch = feed.batch(feed.constants, jax.tree.map(lambda x: x[0], inputs))  # when compiled
"""

from jaxcl.data.arrays import Arrays
from jaxcl.data.digits import Digits
from jaxcl.data.examples import Examples, Pixels, Source, Subset, Unreadable
from jaxcl.data.feeds import Data, open_feed, road_of
from jaxcl.data.folders import Images
from jaxcl.data.lines import Sentences, Text
from jaxcl.data.loading import batches_of, load_split
from jaxcl.data.order import batch_indices, epoch_order, steps_per_epoch
from jaxcl.data.section import Feed, Section
from jaxcl.data.sources import parse_source
from jaxcl.data.subsets import Labels
from jaxcl.data.tfds_source import TFDS

__all__ = [
    "TFDS",
    "Arrays",
    "Data",
    "Digits",
    "Examples",
    "Feed",
    "Images",
    "Labels",
    "Pixels",
    "Section",
    "Sentences",
    "Source",
    "Subset",
    "Text",
    "Unreadable",
    "batch_indices",
    "batches_of",
    "epoch_order",
    "load_split",
    "open_feed",
    "parse_source",
    "road_of",
    "steps_per_epoch",
]
