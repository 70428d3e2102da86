"""Every field of a run, with its default and unit. Other configs state differences only.

python -m repgan_jax.main --config=configs/face.py --config.fewshot.steps=500
"""

from ml_collections import ConfigDict, config_dict

from repgan_jax import config_file


def get_config() -> ConfigDict:
    """Returns the defaults, shared by all domains."""
    config = ConfigDict()
    config.seed = 0  # seed of every random choice of a run
    config.workdir = "runs/base"  # where a run writes, one folder per stage; or gs://BUCKET/RUN
    config.stages = ("fewshot", "generate", "autoshot", "evaluate", "report")
    config.generator = "weights/face"  # folder written by a converter; or gs://BUCKET/FOLDER
    config.classes = "examples/face/classes.txt"  # one class per line: name [#rrggbb]
    config.background = ""  # class of pixels that no labelme or COCO shape covers; "" = by its name
    # Classes that are swapped under horizontal flips: "left ear <-> right ear, A <-> B"; "none" =
    # no class; "" = those stated in config.classes or, if there are none, guessed from the names.
    config.mirror_pairs = ""
    config.label_size = 128  # side length in pixels of the labels of heads and generated images
    config.dtype = "float32"  # arithmetic of the generator: "float32" or "bfloat16"
    config.backend = "shard_map"  # data parallelism: "shard_map" or "pmap"
    config.compilation_cache = "~/.cache/repgan_jax/xla"  # "" turns it off

    config.distributed = False  # one of several processes, as stated by TPU, Slurm or Kubernetes
    cluster = config.cluster = ConfigDict()  # to state it yourself, set the first three
    cluster.address = ""  # host:port of process 0; if set, config.distributed is not needed
    cluster.processes = 0  # number of processes
    cluster.process = -1  # index of this process, from 0
    cluster.lost_after = 30.0  # seconds without a heartbeat after which a process counts as lost

    fewshot = config.fewshot = ConfigDict()
    fewshot.shots = "examples/face"  # images/, masks/ or labelme/, latents.npz (without: photos)
    fewshot.names = ()  # file stems of the shots to use; () = all
    fewshot.reading = "auto"  # values of masks/*.png: "ids", "colours", or "auto" (must be certain)
    fewshot.empty = False  # accept masks that show only background
    fewshot.head = "mlp0"  # mlp0 mlp1 mlp2 cnn_s cnn_m cnn_l
    fewshot.taps = ()  # names of the activations that a head reads; () = all from 8x8 up
    fewshot.resize = "bilinear"  # resizing of projected activations: "bilinear" or "nearest"
    fewshot.ensemble = 1  # number of heads, fitted independently; labels are their mean probability
    fewshot.steps = 300  # optimiser steps
    fewshot.batch_size = 1  # shots per step and head; more than 1 are shared by all devices
    fewshot.learning_rate = 1e-3  # 1e-2 is worse for a linear head and too high for a CNN
    fewshot.decay = "cosine"  # learning rate: "cosine" to 0, "constant", or "paper" (x0.9 every 50)
    fewshot.weight_decay = 1e-3
    # Horizontal flips in fitting, training and prediction: False = never; "always"; True = unless
    # three shots show a class without a partner on one side only.
    fewshot.flip = config_dict.FieldReference(True, field_type=object)
    fewshot.image_tolerance = 8.0  # largest mean difference of shot and latent's image, 0..255
    fewshot.photo_tolerance = 48.0  # pixels off by more (mean of RGB) are excluded from the loss
    # Agreement of a photo's labels with the other photos' (mean IoU, 0 to 1) from which it is used
    # whatever its LPIPS; below half of this it is left out whatever its LPIPS.
    fewshot.min_agreement = 0.4

    generate = config.generate = ConfigDict()
    generate.num_images = 1000
    generate.truncation = 1.0  # psi: 1 = all of the generator's variety, 0 = the mean image
    generate.noise = "stored"  # "stored", "none" or "fresh" (a new noise map per sample)
    generate.label = -1  # class of a class-conditional generator; -1 = random per image
    generate.image_size = 128  # side length in pixels of the stored images
    generate.shard_size = 50  # images per shard; a kill costs one at most; thousands for millions
    generate.batch_size = 4  # images per device and call; does not change the records
    generate.soft_labels = True  # also store class probabilities
    generate.soft_size = 0  # their side length in pixels, a divisor of label_size; 0 = label_size
    generate.soft_type = "uint8"  # "uint8" (255ths, as PNG) or "float16"
    generate.encoding = "png"  # of images: "png", "webp" (lossless, faster) or "jpeg" (lossy)
    generate.drop = 0.0  # share of images excluded from training and export: those on which the
    # heads of an ensemble disagree most (DatasetGAN: 0.1); they stay in the dataset

    verify = config.verify = ConfigDict()
    verify.samples = 8  # images that are generated again and compared byte by byte

    autoshot = config.autoshot = ConfigDict()
    autoshot.widths = (32, 64, 96, 128)  # channels per level of the U-Net
    autoshot.patch = 2  # pixels merged per side at the finest level; 1 = a classical U-Net
    autoshot.steps = 1500
    autoshot.batch_size = 16  # on all devices of all processes together
    autoshot.learning_rate = 5e-3
    autoshot.warmup_steps = 50
    autoshot.weight_decay = 1e-3
    autoshot.clip_norm = 1.0
    autoshot.ema = 0.99  # decay of the averaged weights, which are the result; 0 = off
    autoshot.soft_targets = True  # train on probabilities instead of the most likely class
    autoshot.class_balance = 0.2  # class weight = (share of pixels) ** -x; 0 = equal weights
    autoshot.held_out = 0.05  # share of the generated images used for validation
    autoshot.eval_every = 250  # steps between validations, and between checkpoints
    augment = autoshot.augment = ConfigDict()
    augment.flip = 0.5  # probability; 0 = no flips in the network's predictions either
    augment.rotation = 10.0  # maximum, in degrees
    augment.translation = 0.1  # maximum, as a share of the side length
    augment.scale = (0.8, 1.25)
    augment.brightness = 0.2  # maximum shift, on the range 0..1
    augment.contrast = 0.4  # factor 1 - x .. 1 + x
    augment.saturation = 0.5  # factor 1 - x .. 1 + x
    augment.hue = 0.05  # maximum, in turns of the colour circle
    augment.grey = 0.05  # probability
    augment.class_colour = 0.05  # standard deviation of a colour shift, drawn per class
    augment.background = 0.0  # probability of a replaced background (class 0)
    augment.blur = 1.0  # maximum standard deviation in pixels
    augment.noise = 0.05  # maximum standard deviation (images span a range of 2)

    evaluate = config.evaluate = ConfigDict()
    evaluate.images = ""  # folder of photos, also in subfolders
    evaluate.masks = ""  # folder of their true masks
    evaluate.layout = "fused"  # "fused": one index PNG per photo; "celebamask": {id}_{part}.png
    evaluate.reading = "auto"  # as fewshot.reading, of fused masks; with a class_map of ids: "ids"
    evaluate.size = 512  # side length in pixels at which prediction and truth are compared
    evaluate.validation = 0  # the first so many photos by name are "validation", the rest "test"
    evaluate.split = "test"  # "test" or "validation"
    evaluate.limit = 0  # maximum number of photos; 0 = all
    evaluate.class_map = ConfigDict()  # id or part name -> class; empty = ids of config.classes
    evaluate.merge_order = ()  # part names, later ones painted over earlier ones ("celebamask")

    segment = config.segment = ConfigDict()
    segment.input = ""  # a photo, or a folder of photos
    segment.recursive = True  # also photos in subfolders; masks/ mirrors them
    segment.output = ""  # folder; "" = segment/ in the workdir
    segment.method = "network"  # "network" (stand-alone) or "invert" (latents, then the heads)
    segment.batch_size = 8

    invert = config.invert = ConfigDict()
    invert.input = ""  # a photo, or a folder of photos
    invert.recursive = True  # also photos in subfolders
    invert.landmarks = ""  # .json or .csv: 5 or 68 points, or a box, per photo; "" = centre square
    invert.perceptual = "weights/lpips"  # folder written by converters.lpips
    invert.cache = "~/.cache/repgan_jax/latents"  # results of earlier photos; "" = in the workdir
    invert.preset = "fast"  # one of the groups below: fast, standard, paper
    invert.fast = _projection(  # a reasonable result in minutes, on two cores
        net="alex",
        candidates=16,
        save_every=10,
        steps=60,
        space="w",  # closer to what heads were fitted to than W+, further from the photo
        pull=0.1,
        latent_noise=0.0,
        optimise_noise=False,
        good_lpips=0.17,  # 40 photos: mean IoU of the parts is 0.67 up to here,
        poor_lpips=0.25,  # 0.60 between the two, 0.49 above this
    )
    invert.standard = _projection(
        candidates=64, steps=200, space="w", pull=0.1, latent_noise=0.0, optimise_noise=False
    )
    invert.paper = _projection(space="w", pixel=0.0, pull=0.0)  # StyleGAN2's projector

    sample = config.sample = ConfigDict()
    sample.num_images = 16

    export = config.export = ConfigDict()
    export.format = "coco"  # coco, voc, celebamask or parquet
    export.output = ""  # folder; "" = export/FORMAT in the workdir
    export.held_out = 0.05  # share of the images, the last ones, in the split "val"
    export.shard_size = 500  # images per Parquet file; in any format, a kill costs so many at most
    config_file.add_former_names(config)
    config.lock()  # unknown fields are errors, in a config file as on the command line
    config.evaluate.class_map.unlock()
    return config


def _projection(**changes: object) -> ConfigDict:
    """Returns the settings of latent optimisation: StyleGAN2's, in W+, with `changes`."""
    settings = ConfigDict()
    settings.net = "vgg"  # network of LPIPS: "vgg", or "alex", which is about twenty times as fast
    settings.start = ""  # npz of latents to start from (w, name); "" = see candidates
    settings.candidates = 0  # start from the best of so many random latents and the mean latent
    settings.steps = 1000
    settings.save_every = 50  # steps between checkpoints; a kill costs so many at most
    settings.plateau = 0.0  # stop if the loss falls by a smaller share between them; 0 = never
    settings.space = "w+"  # "w": one latent for all layers; "w+": one per layer
    settings.learning_rate = 0.1
    settings.ramp_up = 0.05  # share of the steps in which the rate rises
    settings.ramp_down = 0.25  # share of the steps in which it falls to 0
    settings.latent_noise = 0.05  # initial deviation of the noise on w; that of latents is 1
    settings.noise_ramp = 0.75  # share of the steps in which this noise falls to 0
    settings.optimise_noise = True  # also optimise the noise maps
    settings.noise_regularisation = 1e5  # weight of the noise maps' autocorrelation
    settings.pixel = 1.0  # weight of the mean squared difference of pixels, beside LPIPS
    settings.pull = 0.02  # weight of the squared distance from the mean latent (usual is 1)
    settings.together = 0.0  # weight of the squared spread of the layers' latents
    settings.size = 256  # side length in pixels at which images are compared
    # By VGG16, for the photos and results that set the limits of "fast": mean IoU 0.68, 0.59, 0.48.
    settings.good_lpips = 0.34  # a result is "good" up to this LPIPS and good_distance,
    settings.poor_lpips = 0.44  # "poor" up to this LPIPS, and "failed" above
    settings.good_distance = 1.5  # distance of the latent from the mean; about 1 for random latents
    settings.update(changes)
    return settings
