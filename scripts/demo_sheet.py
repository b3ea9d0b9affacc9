"""One before/after sheet of a folder of pictures and its restored copies.

python scripts/demo_sheet.py RAINY RESTORED SHEET.jpg
"""

import sys
from pathlib import Path

from derain.pictures import Picture, comparison_sheet, find_pictures, read_picture, to_rgb8, write_picture

rainy, restored, sheet = (Path(argument) for argument in sys.argv[1:])
pairs = [
    (found.relative.stem, *(to_rgb8(read_picture(folder / found.relative)) for folder in (rainy, restored)))
    for found in find_pictures([rainy])
]
write_picture(sheet, Picture(comparison_sheet(pairs)))
print(f"The restored pictures are in {restored}/, before and after side by side in {sheet}")
