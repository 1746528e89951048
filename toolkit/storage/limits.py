"""How much is taken from a file that anybody may have written: asked before a byte of it is allocated.

Each limit is far above what the toolkit itself writes and far below what hurts a small device. A file above its limit
is refused in words; nothing is cut.
"""

MANIFEST_BYTES = 4 << 20  # that of the default model is 15 KiB; JSON takes up to 25 times its size in Python
DOCUMENT_BYTES = 64 << 20  # any other JSON: a record of a million images is 26 MiB
TAR_BYTES = 1 << 30  # a packed bundle is held in memory: what was checked is what is used
FILE_BYTES = 2 << 30  # any other file of a bundle; protobuf, and so ONNX without external data, ends here
BUNDLE_FILES = 256  # each is held open while a bundle is; a default one has 12, an engine brings 2
KEY_BYTES = 64 << 10  # a key as PEM, a signature
GOLDEN_BYTES = 256 << 20  # arrays of golden.npz together, unpacked; those of the default model are 200 KiB
IMAGES_BYTES, IMAGES_PACKED = 1 << 30, 50  # a user's set, unpacked: so much, or so many times its file
IMAGE_BYTES, PIXELS = 256 << 20, 50_000_000  # of one image file; cameras have 12 to 48 million pixels
ONNX_FIELDS = 600_000  # protobuf fields of an ONNX file; that of the default has 3,000, 10,000 nodes have 300,000
ONNX_DEPTH = 32  # graphs, functions and types inside one another
ONNX_NODES = 10_000  # functions taken apart; ResNet-1202 has 3,600
ONNX_BRANCHES, ONNX_WIRES = 1_000, 100_000  # nodes in branches; inputs, outputs and attributes of all nodes
MADE_BYTES = 64 << 20  # of a constant that a node makes of nothing but its shape
INPUT_SIDE, INPUT_BATCH, INPUT_NUMBERS = 1 << 14, 4096, 8 << 20  # of the images that an ONNX file takes
TRIAL_SECONDS, TRIAL_BYTES = 2, 256 << 20  # an ONNX file's first run, beside what it declares (graph/user/work)
# What it may declare an image, and so much more for each number of the image. ViT-H/14 at 518 pixels: 1e12
# multiplications of 4e9 numbers. The largest tensor of EfficientNet-B7 at 600 pixels: 69 MiB.
MULTIPLICATIONS_OF, NUMBERS_OF, TENSOR_OF = (4e10, 2e6), (1e9, 1e4), (32 << 20, 256)
GUESSED_MULTIPLICATIONS = 2e10  # of all layers whose shapes only the run tells: ResNet-152 at 224 pixels has 1.2e10
CHECKPOINT_BYTES = 16 << 30  # a checkpoint, unpacked
TOML_BYTES, DOTS = 1 << 20, 100  # of a file that people write, and in a line of it
