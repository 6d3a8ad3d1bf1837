"""Which pictures of a stream no other picture needs, so that a decoder may leave them out: what their packets say."""

from collections.abc import Callable

import av
from av import VideoStream


# H.265, table 7-1: kinds of NAL units below this hold parts of pictures
_PICTURE_KINDS = 32


def layer_reader(stream: VideoStream) -> Callable[[av.Packet], bool]:
    """
    Says of a packet whether "not a reference", where it says so of its picture, means that no other picture needs it.

    In H.264 (7.4.1, `nal_ref_idc` 0) it does. In H.265 (7.4.2.2) it only says that no later picture *of the same temporal
    sub-layer* does, and those of higher ones may; so the whole stream has to lie in the lowest. VP9 keeps what it has learnt of
    probabilities from such a picture, and the AV1 decoder cannot be told packet by packet: never there.
    """
    name, head = stream.codec.canonical_name, bytes(stream.codec_context.extradata or b"")
    if name == "h264":
        return lambda packet: True
    if name != "hevc" or len(head) < 23 or head[0] != 1:  # not in the form of ISO 14496-15: units without lengths
        return lambda packet: False
    prefix = (head[21] & 3) + 1
    return lambda packet: _in_lowest_layer(memoryview(packet), prefix)


def _in_lowest_layer(data: memoryview, prefix: int) -> bool:
    """
    Whether all picture parts of an HEVC packet have temporal id 0. Each NAL unit stands behind its length, in `prefix` bytes;
    its header is a 0, 6 bits of kind, 6 of layer and 3 of temporal id + 1 (H.265, 7.3.1.2).
    """
    place, is_picture = 0, False
    while place + prefix + 2 <= len(data):
        header = int.from_bytes(data[place + prefix : place + prefix + 2], "big")
        if header >> 9 & 63 < _PICTURE_KINDS:
            is_picture = True
            if header & 7 != 1:
                return False
        place += prefix + int.from_bytes(data[place : place + prefix], "big")
    return is_picture
