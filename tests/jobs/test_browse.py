import base64
import io
import re

import av

from avdata.pipeline.shards.browse import open_shards
from avdata.pipeline.shards.dataset import Dataset


def test_a_clip_is_shown_decoded_with_the_encoders_of_its_shards(learned: Dataset) -> None:
    html = open_shards(learned.root).show(0)._repr_html_()
    data = re.search(r"base64,([^\"]+)", html)
    assert data is not None
    with av.open(io.BytesIO(base64.b64decode(data.group(1))), mode="r") as media:
        assert {stream.type for stream in media.streams} == {"video", "audio"}
        frames = list(media.decode(video=0))
    assert len(frames) == learned.clip.num_frames
    assert (frames[0].height, frames[0].width) == (learned.clip.height, learned.clip.width)
