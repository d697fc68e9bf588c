"""Dataset card: any reader finds columns, classes and colours of an OUTPUT by itself."""

import json

from job.outputs.dataset_card import (
    CARD,
    LABELS,
    read_labels,
    write_card,
)
from job.storage.opening import locate
from tests.conftest import S3
from tests.unit.test_dataset_card import COLOURS, NAMES


def test_it_is_written_to_s3_as_well(s3: S3) -> None:
    place = locate("s3://bucket/described")
    write_card(place, NAMES, COLOURS)
    assert place.names() == [CARD, LABELS]
    assert read_labels(place) == json.loads((place / LABELS).read_bytes())
    write_card(place, NAMES, COLOURS)
