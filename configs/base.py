"""Every field of a run, its default and its unit. Domains state differences only.

python -m repgan_jax.main --config=configs/face.py --config.fewshot.steps=500
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Returns the defaults, shared by all domains."""
    config = ConfigDict()
    config.seed = 0  # every random choice of a run derives from it
    config.workdir = "runs/base"  # where a run writes: one folder a stage; or gs://BUCKET/RUN
    config.stages = ("fewshot", "generate", "autoshot", "evaluate", "report")
    config.generator = "weights/face"  # folder written by a converter; or gs://BUCKET/FOLDER
    config.classes = (
        "examples/face/classes.txt"  # a class a line: name [#rrggbb]; the line is the id
    )
    config.background = ""  # class of pixels that no labelme or COCO shape covers; "" = by its name
    # Classes that trade names in a mirrored image: "left ear <-> right ear, A <-> B"; "none" = no
    # class does; "" = those stated in config.classes or, where it states none, guessed from names.
    config.mirror_pairs = ""
    config.label_size = 128  # pixels a side: labels of heads and of generated pictures
    config.dtype = "float32"  # arithmetic of the generator: "float32" or "bfloat16"
    config.backend = "shard_map"  # data parallelism: "shard_map" or "pmap"
    config.compilation_cache = "~/.cache/repgan_jax/xla"  # "" turns it off

    config.distributed = False  # one of several processes, as TPU, Slurm or Kubernetes tell it
    cluster = config.cluster = ConfigDict()  # where nothing tells it: all three of
    cluster.address = ""  # host:port of process 0; setting it makes config.distributed needless
    cluster.processes = 0  # how many there are
    cluster.process = -1  # which one this is, counted from 0
    cluster.lost_after = 30.0  # seconds without a sign of life after which a process counts as dead

    fewshot = config.fewshot = ConfigDict()
    fewshot.shots = (
        "examples/face"  # images/, masks/ (PNG) or labelme/ (JSON), latents.npz; photos without it
    )
    fewshot.names = ()  # file stems of the shots to use; () = all
    fewshot.reading = "auto"  # values of masks/*.png: "ids", "colours" or "auto", if it is certain
    fewshot.empty = False  # accept masks that show nothing but background
    fewshot.head = "mlp0"  # mlp0 mlp1 mlp2 cnn_s cnn_m cnn_l
    fewshot.taps = ()  # names of the activations a head reads; () = all from 8x8 up
    fewshot.resize = "bilinear"  # of projected activations to the label size: bilinear or nearest
    fewshot.ensemble = 1  # heads, trained apart from each other; labels are their mean probability
    fewshot.steps = 300  # optimiser steps
    fewshot.batch_size = 1  # shots a step and head; several are shared by all devices
    fewshot.learning_rate = 1e-3  # 1e-2 suits a linear head less, and ruins a CNN
    fewshot.decay = "cosine"  # learning rate: "cosine" to 0, "constant", or "paper" (x0.9 every 50)
    fewshot.weight_decay = 1e-3
    # Mirror in fitting heads, in training the network and in its predictions: True = unless three
    # shots show a class without a partner on one side only; "always"; False = nowhere.
    fewshot.flip = config_dict.FieldReference(True, field_type=object)
    fewshot.picture_tolerance = (
        8.0  # mean absolute difference (0..255) allowed, shot against latent
    )
    fewshot.photo_tolerance = 48.0  # pixels of photos off by more (mean of RGB) teach nothing
    fewshot.min_agreement = 0.4  # of a photo's labels with the other shots' (mean IoU, 0 to 1)
    # which keeps it whatever its LPIPS; less than half of this leaves it out whatever its LPIPS

    generate = config.generate = ConfigDict()
    generate.num_pictures = 1000
    generate.truncation = 1.0  # psi: 1 = all of the generator's variety, 0 = the mean picture
    generate.noise = "stored"  # "stored", "none" or "fresh" (a new map a sample)
    generate.label = -1  # class of a generator that has classes; -1 = a random one a picture
    generate.picture_size = 128  # pixels a side of the stored pictures
    generate.shard_size = 50  # pictures a shard: what a kill can cost; thousands for millions
    generate.batch_size = 4  # pictures a device and call; changes no record
    generate.soft_labels = True  # also store class probabilities
    generate.soft_size = 0  # pixels a side of these, a divisor of label_size; 0 = label_size
    generate.soft_type = "uint8"  # "uint8" (255ths, as PNG) or "float16"
    generate.encoding = "png"  # of pictures: "png", "webp" (lossless, faster) or "jpeg" (lossy)
    generate.drop = 0.0  # share of the pictures, those on which the heads of an ensemble disagree
    # most, that nobody learns from (DatasetGAN: 0.1); they stay in the dataset

    verify = config.verify = ConfigDict()
    verify.samples = 8  # pictures that are generated once more, to compare all their bytes

    autoshot = config.autoshot = ConfigDict()
    autoshot.widths = (32, 64, 96, 128)  # channels a level of the U-Net
    autoshot.patch = 2  # pixels a side that the finest level sees as one; 1 = a classical U-Net
    autoshot.steps = 1500
    autoshot.batch_size = 16  # over all devices of all processes
    autoshot.learning_rate = 5e-3
    autoshot.warmup_steps = 50
    autoshot.weight_decay = 1e-3
    autoshot.clip_norm = 1.0
    autoshot.ema = 0.99  # decay of the averaged weights, the ones that are kept; 0 turns it off
    autoshot.soft_targets = True  # learn from probabilities instead of the most likely class
    autoshot.class_balance = 0.2  # weight of a class: its share of pixels to minus this; 0 = equal
    autoshot.held_out = 0.05  # share of the generated pictures kept for validation
    autoshot.eval_every = 250  # steps between validations and checkpoints
    augment = autoshot.augment = ConfigDict()
    augment.flip = 0.5  # probability; 0 = no mirroring in the network's predictions either
    augment.rotation = 10.0  # degrees, either way
    augment.translation = 0.1  # share of the side, either way
    augment.scale = (0.8, 1.25)
    augment.brightness = 0.2  # of the range 0..1, either way
    augment.contrast = 0.4  # factor 1 - x .. 1 + x
    augment.saturation = 0.5  # factor 1 - x .. 1 + x
    augment.hue = 0.05  # turns of the colour circle, either way
    augment.grey = 0.05  # probability
    augment.class_colour = 0.05  # deviation of a colour shift that each class gets of its own
    augment.background = 0.0  # probability of another background (class 0)
    augment.blur = 1.0  # standard deviation in pixels, up to
    augment.noise = 0.05  # standard deviation (pictures span 2), up to

    evaluate = config.evaluate = ConfigDict()
    evaluate.images = ""  # folder of photos, and of folders of them
    evaluate.masks = ""  # folder of their true masks
    evaluate.layout = (
        "fused"  # "fused": one index PNG a photo; "celebamask": {id}_{part}.png, merged
    )
    evaluate.reading = "auto"  # of fused masks, as fewshot.reading; a class_map of ids says "ids"
    evaluate.size = 512  # pixels a side at which prediction and truth are compared
    evaluate.validation = (
        0  # the first so many stems (sorted) choose settings; the rest are the test
    )
    evaluate.split = "test"  # "test" or "validation"
    evaluate.limit = 0  # at most so many photos; 0 = all
    evaluate.class_map = ConfigDict()  # truth's id or part name -> class name; empty: ids are ours
    evaluate.merge_order = ()  # part names, the later painted over the earlier ("celebamask")

    segment = config.segment = ConfigDict()
    segment.input = ""  # a photo, or a folder of photos
    segment.recursive = True  # photos in the folders inside, too; masks/ has the same folders
    segment.output = ""  # folder; "" = segment/ in the workdir
    segment.method = "network"  # the stand-alone "network", or "invert": latents, then the heads
    segment.batch_size = 8

    invert = config.invert = ConfigDict()
    invert.input = ""  # a photo, or a folder of photos
    invert.recursive = True  # photos in the folders inside, too
    invert.landmarks = ""  # .json or .csv: 5 or 68 points, or a box, for each; "" = centre square
    invert.perceptual = "weights/lpips"  # folder written by converters.lpips
    invert.cache = "~/.cache/repgan_jax/latents"  # of photos done before; "" = in the workdir
    invert.preset = "fast"  # which of these three groups of settings: fast, standard, paper
    invert.fast = _projection(  # a likeness in minutes, on two cores
        net="alex",
        candidates=16,
        save_every=10,
        steps=60,
        space="w",  # nearer than W+ to what heads have learned from, at half the likeness
        pull=0.1,
        latent_noise=0.0,
        optimise_noise=False,
        good_lpips=0.17,  # 40 photos: mean IoU of the parts 0.67 up to here,
        poor_lpips=0.25,  # 0.60 from there on, 0.49 beyond this
    )
    invert.standard = _projection(
        candidates=64, steps=200, space="w", pull=0.1, latent_noise=0.0, optimise_noise=False
    )
    invert.paper = _projection(space="w", pixel=0.0, pull=0.0)  # StyleGAN2's projector

    sample = config.sample = ConfigDict()
    sample.num_pictures = 16

    export = config.export = ConfigDict()
    export.format = "coco"  # coco, voc, celebamask or parquet
    export.output = ""  # folder; "" = export/FORMAT in the workdir
    export.held_out = 0.05  # share of the pictures, the last ones, that are the split "val"
    export.shard_size = 500  # pictures a Parquet file; in any format, what a kill can cost
    config.lock()  # a field that is not here is a slip, in a config file as in an argument
    config.evaluate.class_map.unlock()
    return config


def _projection(**changes: object) -> ConfigDict:
    """Returns the settings of latent optimisation: StyleGAN2's, in W+, but for `changes`."""
    settings = ConfigDict()
    settings.net = "vgg"  # network of LPIPS: "vgg", or "alex", which is some twenty times as fast
    settings.start = ""  # npz of latents to start from (w, name, as of shots); "" = see candidates
    settings.candidates = 0  # start from the best of so many random latents and the mean
    settings.steps = 1000
    settings.save_every = 50  # steps between checkpoints; one is what a kill can cost
    settings.plateau = 0.0  # end where the loss falls by a smaller share between them; 0 = never
    settings.space = "w+"  # "w": one latent for all layers; "w+": one a layer
    settings.learning_rate = 0.1
    settings.ramp_up = 0.05  # share of the steps in which the rate rises
    settings.ramp_down = 0.25  # share of the steps in which it falls to 0
    settings.latent_noise = 0.05  # deviation of the noise on w at first; the latents' own is 1
    settings.noise_ramp = 0.75  # share of the steps in which that falls to 0
    settings.optimise_noise = True  # noise maps as well
    settings.noise_regularisation = 1e5  # weight of their autocorrelation
    settings.pixel = 1.0  # weight of the mean squared difference of pixels, beside LPIPS
    settings.pull = 0.02  # weight of the squared distance from the mean latent (usual is 1)
    settings.together = 0.0  # weight of the squared spread of the layers' latents
    settings.size = 256  # pixels a side at which pictures are compared
    # by VGG16, for the photos and results that set the limits of "fast": mean IoU 0.68, 0.59, 0.48
    settings.good_lpips = 0.34  # a result is "good" up to this LPIPS and good_distance,
    settings.poor_lpips = 0.44  # "poor" up to this, and "failed" beyond
    settings.good_distance = 1.5  # of the latent from the mean; random latents are at about 1
    settings.update(changes)
    return settings
