"""Archives of features: Lhotse's chunky lilcom, and a checksum of each array in its cut's manifest.

lilcom decodes changed bytes to other features, or to none, and says nothing. A checksum for each
array, and not for each archive, is looked at when the array is read: no pass over all archives is
needed (those of 1000 h are 30 GB), and it is known which utterance is damaged. CRC-32 finds every
change of up to 32 bits in a row, and others but for one in 4·10⁹.
"""

import zlib
from pathlib import Path

import numpy as np
from lhotse import LilcomChunkyWriter
from lhotse.cut import Cut
from lhotse.features.compression import lilcom_compress_chunked

CHECKSUM = "features_crc32"  # field `custom` of a cut


def write_array(writer: LilcomChunkyWriter, value: np.ndarray) -> tuple[str, int]:
    """Write an array (T, F) as Lhotse's writer does.

    Returns:
        its storage key (offset in the archive, then sizes of its chunks), and its bytes' CRC-32
    """
    chunks = lilcom_compress_chunked(
        value, tick_power=writer.tick_power, chunk_size=writer.CHUNK_SIZE
    )
    content = b"".join(chunks)
    key = ",".join(map(str, [writer.curr_offset, *map(len, chunks)]))
    writer.file.write(content)
    writer.curr_offset += len(content)
    return key, zlib.crc32(content)


def check_array(cut: Cut) -> None:
    """See that a cut's features are in their archive as they were written.

    Cuts of an earlier time, without a checksum, are not looked at.

    Raises:
        ValueError: they are not.
        OSError: the archive cannot be read.
    """
    if CHECKSUM not in (cut.custom or {}):
        return
    offset, *sizes = map(int, cut.features.storage_key.split(","))
    with Path(cut.features.storage_path).open("rb") as archive:
        archive.seek(offset)
        content = archive.read(sum(sizes))
    if len(content) < sum(sizes):
        raise ValueError(f"{len(content)} of its {sum(sizes)} bytes are there")
    if zlib.crc32(content) != cut.custom[CHECKSUM]:
        raise ValueError("its checksum is not that of stage 2")
