"""Pixels from ROS images, compressed images and files, one decoder for each kind."""

from typing import TYPE_CHECKING

from gps_denied_inference.lazy import exports

if TYPE_CHECKING:
    from gps_denied_inference.images.compressed import compressed_to_array, decode_image
    from gps_denied_inference.images.files import read_image
    from gps_denied_inference.images.headers import ImageFile, read_header
    from gps_denied_inference.images.raw import image_to_array, known_encodings, scale_to_8_bit

__all__ = [
    "ImageFile",
    "compressed_to_array",
    "decode_image",
    "image_to_array",
    "known_encodings",
    "read_header",
    "read_image",
    "scale_to_8_bit",
]

if not TYPE_CHECKING:
    __getattr__ = exports(
        __name__,
        {
            "compressed": ("compressed_to_array", "decode_image"),
            "files": ("read_image",),
            "headers": ("ImageFile", "read_header"),
            "raw": ("image_to_array", "known_encodings", "scale_to_8_bit"),
        },
    )
