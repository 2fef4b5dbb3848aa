"""From decoded features to images on disk: every condition of stages 1 and 2.

A condition says which features (decoded, true, another image's) go through which part
of the generator. Noise comes from a stream named by subject and image, so that no image
depends on order or shard; the last shard puts the tables and trajectories of all of
them together. Not here: the sampler (`diffusion`) and the optimisation (`alignment`).

`settings` says how, `room` how many at once, `features` reads what was decoded,
`stage1` and `stage2` make the images, `written` is what is kept of them, `shards` puts
the parts together.
"""

from minddiff_utils.generation.batches import subject_of
from minddiff_utils.generation.reconstruction.features import (
    DecodedFeatures,
    Source,
    chosen_words,
    read_decoded,
)
from minddiff_utils.generation.reconstruction.room import (
    Footprint,
    Room,
    counted_footprint,
    default_memory,
    held_by,
    image_bytes,
    room_for,
    with_memory,
)
from minddiff_utils.generation.reconstruction.settings import (
    Stage2Settings,
    config_of,
    diffusion_settings,
    from_noise,
    paper_config,
    sampler_of,
    shorter,
    stage2_settings,
    with_preset,
)
from minddiff_utils.generation.reconstruction.shards import (
    Finished,
    begin_stage,
    finish_stage1,
    finish_stage2,
)
from minddiff_utils.generation.reconstruction.stage1 import (
    Made,
    noise_generators,
    stage1_images,
)
from minddiff_utils.generation.reconstruction.stage2 import (
    Aligned,
    align_batch,
    align_images,
    zero_iterations_equal,
)
from minddiff_utils.generation.reconstruction.written import (
    stage1_table,
    stage2_table,
    trajectory_arrays,
    write_images,
)

__all__ = [
    "Aligned",
    "DecodedFeatures",
    "Finished",
    "Footprint",
    "Made",
    "Room",
    "Source",
    "Stage2Settings",
    "align_batch",
    "align_images",
    "begin_stage",
    "chosen_words",
    "config_of",
    "counted_footprint",
    "default_memory",
    "diffusion_settings",
    "finish_stage1",
    "finish_stage2",
    "from_noise",
    "held_by",
    "image_bytes",
    "noise_generators",
    "paper_config",
    "read_decoded",
    "room_for",
    "sampler_of",
    "shorter",
    "stage1_images",
    "stage1_table",
    "stage2_settings",
    "stage2_table",
    "subject_of",
    "trajectory_arrays",
    "with_memory",
    "with_preset",
    "write_images",
    "zero_iterations_equal",
]
