"""Pillow: an image has four bytes for each pixel in modes RGB and RGBA, and one in mode L."""

import PIL
from holding import hold
from PIL import Image

WIDTH, HEIGHT = 2500, 1600
BYTES = {"RGB": 4, "RGBA": 4, "L": 1}


def make():
    image = Image.new("RGB", (WIDTH, HEIGHT), "red")
    return [image, image.rotate(90, expand=True), image.convert("RGBA"), image.convert("L")]


def expected(images):
    return sum(BYTES[image.mode] * image.width * image.height for image in images)


hold(make, expected, needs="native", version=PIL.__version__)
