"""Reading and writing still pictures with all that they carry: 8 and 16 bits, alpha, EXIF, ICC."""

from derain.pictures.finding import EXTENSIONS, Found, Unread, find, find_pictures, passed_over
from derain.pictures.kinds import FileKind, file_kind, kind_of
from derain.pictures.picture import Picture, to_rgb8, to_tensor, with_pixels
from derain.pictures.reading import MAX_PIXELS, TooManyPixels, read_picture
from derain.pictures.sheets import comparison_sheet, labelled_grid, side_by_side
from derain.pictures.writing import encode_picture, left_out, write_picture

__all__ = [
    "EXTENSIONS",
    "MAX_PIXELS",
    "FileKind",
    "Found",
    "Picture",
    "TooManyPixels",
    "Unread",
    "comparison_sheet",
    "encode_picture",
    "file_kind",
    "find",
    "find_pictures",
    "kind_of",
    "labelled_grid",
    "left_out",
    "passed_over",
    "read_picture",
    "side_by_side",
    "to_rgb8",
    "to_tensor",
    "with_pixels",
    "write_picture",
]
