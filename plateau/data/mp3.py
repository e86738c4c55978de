"""MP3s with a true number of frames: libmpg123 believes what the header says, or guesses."""

import io
import re
from collections.abc import Iterator

# kbit/s by (MPEG 1?, layer), for the 4 bits of a frame's header; 0 is free and 15 is not allowed
_KBITS = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBITS[False, 3] = _KBITS[False, 2]
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_SAME = 0xFFFE0C00  # what all headers of a file share: version, layer, sampling rate


class _Longer(io.BytesIO):
    """A file with a hole behind its content: its end is at ``end``, reading stops before."""

    def __init__(self, content: bytes, end: int):
        super().__init__(content)
        self._end = max(end, len(content))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As files do."""
        return super().seek(*((self._end + offset,) if whence == io.SEEK_END else (offset, whence)))

    def readinto(self, buffer: bytearray) -> int:
        """As files do, but for the hole; where a tag (ID3v1) may be at the very end, it is zero."""
        count = super().readinto(buffer)
        if not count and self._end - 128 <= self.tell() < self._end:
            count = min(len(buffer), self._end - self.tell())
            buffer[:count] = bytes(count)
            super().seek(count, io.SEEK_CUR)
        return count


def with_true_length(content: bytes) -> io.BytesIO:
    """The same file for a decoder that stops where it takes the end to be.

    Where the first frame has a Xing tag with the number of frames, it becomes the number that there
    are. Without one, libmpg123 estimates from the size of the file and of its first frame; so the
    file then seems large enough for all frames, and is read until there is nothing more.

    Raises:
        ValueError: truncated: there are fewer frames, and fewer bytes, than the tag says.
    """
    frames = list(_frames(content))
    if not frames:
        return io.BytesIO(content)
    first, size = frames[0]
    end = sum(frames[-1])  # a frame that is cut off, and other kinds of tags, follow
    tag = re.search(rb"Xing|Info", content[first : first + size])
    at = first + tag.start() if tag else 0
    if not (tag and content[at + 7] & 1):
        if tag:  # it does not say the number of frames
            frames = frames[1:]
        start = frames[0][0] if frames else end
        # The decoder's estimate may be lower by the padding of frames.
        return _Longer(content[start:end], (size + 4) * len(frames))
    said, there = int.from_bytes(content[at + 8 : at + 12], "big"), len(frames) - 1
    numbers = there.to_bytes(4, "big")
    if content[at + 7] & 2:
        said_bytes = int.from_bytes(content[at + 12 : at + 16], "big")
        if said > there and said_bytes > len(content) - first:
            raise ValueError(f"truncated: {len(content) - first} of {said_bytes} bytes are there")
        numbers += (end - first).to_bytes(4, "big")
    return io.BytesIO(content[first : at + 8] + numbers + content[at + 8 + len(numbers) : end])


def _frames(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and size, in bytes, of each whole frame."""
    at, shared = _after_id3(content), None
    while at + 4 <= len(content):
        size = _size(content, at, shared)
        if size and at + size <= len(content):
            shared = int.from_bytes(content[at : at + 4], "big") & _SAME
            yield at, size
            at += size
        else:
            at = _next(content, at + 1, shared)


def _next(content: bytes, at: int, shared: int | None) -> int:
    """Where the next frame is that is followed by another one or by the end of the file."""
    while (at := content.find(b"\xff", at)) >= 0:
        size = _size(content, at, shared)
        if size and (at + size == len(content) or _size(content, at + size, shared)):
            return at
        at += 1
    return len(content)


def _size(content: bytes, at: int, shared: int | None) -> int:
    """Bytes of the frame that starts here; 0 if none does."""
    header = int.from_bytes(content[at : at + 4], "big")
    if header >> 21 != 0x7FF or at + 4 > len(content):
        return 0
    if shared is not None and header & _SAME != shared:
        return 0
    version, layer = header >> 19 & 3, 4 - (header >> 17 & 3)
    kbits, rate, padding = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1
    if version == 1 or layer == 4 or kbits in (0, 15) or rate == 3:
        return 0
    bits = 1000 * _KBITS[version == 3, layer][kbits - 1]
    hertz = _RATES[version][rate]
    if layer == 1:
        return 4 * (12 * bits // hertz + padding)
    samples = 1152 if version == 3 or layer == 2 else 576
    return samples // 8 * bits // hertz + padding


def _after_id3(content: bytes) -> int:
    """Where the ID3v2 tags at the start of a file end."""
    at = 0
    while content[at : at + 3] == b"ID3" and at + 10 <= len(content):
        size = 0
        for byte in content[at + 6 : at + 10]:
            size = size << 7 | byte & 127
        at += 10 + size + (10 if content[at + 5] & 16 else 0)
    return at
