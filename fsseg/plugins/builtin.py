"""The built-in components, registered through the same hooks as anybody's."""

from fsseg.plugins.hookspecs import Register, hookimpl


@hookimpl
def register_datasets(register: Register) -> None:
    register("abdomen_phantom", "fsseg.data.datasets.phantom.dataset:AbdomenPhantom")
    register("chaos_t2", "fsseg.data.datasets.folders:ChaosT2")
    register("sabs", "fsseg.data.datasets.folders:Sabs")
    register("cmr", "fsseg.data.datasets.folders:Cmr")
    register("nifti", "fsseg.data.datasets.folders:NiftiFolder")


@hookimpl
def register_supervoxels(register: Register) -> None:
    register("felzenszwalb", "fsseg.data.supervoxels.felzenszwalb:Felzenszwalb")
    register("slic", "fsseg.data.supervoxels.slic:Slic")
    register("stored", "fsseg.data.supervoxels.stored:Stored")


@hookimpl
def register_intensities(register: Register) -> None:
    register("zscore", "fsseg.data.intensity_rules:ZScore")
    register("percentile", "fsseg.data.intensity_rules:Percentile")
    register("window", "fsseg.data.intensity_rules:Window")
    register("nyul", "fsseg.data.intensity_rules:Nyul")


@hookimpl
def register_episodes(register: Register) -> None:
    register("supervoxel_pairs", "fsseg.training.sources:SupervoxelPairs")
    register("superpixel", "fsseg.training.sources:Superpixel")
    register("labelled", "fsseg.training.sources:Labelled")


@hookimpl
def register_augmentations(register: Register) -> None:
    register("gamma", "fsseg.training.augmentations.intensity:Gamma")
    register("warp", "fsseg.training.augmentations.spatial:Warp")
    register("affine", "fsseg.training.augmentations.spatial:AffineWarp")
    register("elastic", "fsseg.training.augmentations.spatial:ElasticWarp")
    register("flip", "fsseg.training.augmentations.spatial:Flip")
    register("random_curve", "fsseg.training.augmentations.intensity:RandomCurve")
    register("random_network", "fsseg.training.augmentations.network:RandomNetwork")
    register("bias_field", "fsseg.training.augmentations.intensity:BiasField")
    register("noise", "fsseg.training.augmentations.intensity:Noise")


@hookimpl
def register_backbones(register: Register) -> None:
    register("timm", "fsseg.model.backbones.timm:TimmBackbone")
    register("deeplab_resnet101", "fsseg.model.backbones.deeplab:DeepLabResNet101")


@hookimpl
def register_prototypes(register: Register) -> None:
    register("map", "fsseg.model.prototypes:MaskedAverage")
    register("em_gmm", "fsseg.model.prototypes:EmGmm")


@hookimpl
def register_heads(register: Register) -> None:
    register("adnet", "fsseg.model.heads:AdNet")
    register("adnetpp", "fsseg.model.heads:AdNetPp")
    register("tpm", "fsseg.model.heads:Tpm")


@hookimpl
def register_losses(register: Register) -> None:
    register("query", "fsseg.training.losses:QueryNll")
    register("alignment", "fsseg.training.losses:Alignment")
    register("exchange", "fsseg.training.losses:Exchange")
    register("t_loss", "fsseg.training.losses:TLoss")


@hookimpl
def register_optimisers(register: Register) -> None:
    names = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adafactor", "Adadelta", "Adagrad")
    for name in (*names, "ASGD", "RMSprop", "Rprop"):
        register(name, f"fsseg.training.optimisers:{name}")


@hookimpl
def register_schedules(register: Register) -> None:
    register("step_decay", "fsseg.training.schedules:StepDecay")
    of_steps = ("ConstantLR", "LinearLR", "StepLR", "MultiStepLR", "ExponentialLR", "PolynomialLR")
    of_cycles = ("CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR")
    for name in (*of_steps, *of_cycles):
        register(name, f"fsseg.training.schedules:{name}")


@hookimpl
def register_thresholds(register: Register) -> None:
    register("fixed", "fsseg.model.thresholds:Fixed")
    register("ce_t", "fsseg.model.thresholds:CeT")
    register("avg_est", "fsseg.model.thresholds:AvgEst")
    register("lin_est", "fsseg.model.thresholds:LinEst")
    register("profile", "fsseg.model.thresholds:Profile")
    register("ocp", "fsseg.model.thresholds:Ocp")


@hookimpl
def register_refiners(register: Register) -> None:
    register("none", "fsseg.model.refiners:Unrefined")
    register("component_3d", "fsseg.model.refiners:Component3d")
    register("smooth_3d", "fsseg.model.refiners:Smooth3d")
    register("amount", "fsseg.model.refiners:Amount")
    register("position", "fsseg.model.refiners:Position")
    register("query_informed", "fsseg.model.refiners:QueryInformed")


@hookimpl
def register_folds(register: Register) -> None:
    register("dataset", "fsseg.data.named_folds:OfDataset")
    register("hansen2022", "fsseg.data.named_folds:Hansen2022")
    register("hansen2022_circular", "fsseg.data.named_folds:Hansen2022Circular")
    register("rpt_sabs", "fsseg.data.named_folds:RptSabs")
    register("tpm_sabs", "fsseg.data.named_folds:TpmSabs")
    register("disjoint2", "fsseg.data.named_folds:Disjoint2")
    register("disjoint3", "fsseg.data.named_folds:Disjoint3")
    register("disjoint5", "fsseg.data.named_folds:Disjoint5")
    register("disjoint", "fsseg.data.named_folds:Disjoint")
    register("listed", "fsseg.data.named_folds:Listed")


@hookimpl
def register_protocols(register: Register) -> None:
    register("ep2", "fsseg.recipe.named_protocols:Ep2")
    register("ep1", "fsseg.recipe.named_protocols:Ep1")
    register("alp_3chunk", "fsseg.recipe.named_protocols:Alp3Chunk")
    register("ep2_multi", "fsseg.recipe.named_protocols:Ep2Multi")
    register("ep2_pooled", "fsseg.recipe.named_protocols:Ep2Pooled")
    register("own_slice", "fsseg.recipe.named_protocols:OwnSlice")


@hookimpl
def register_metrics(register: Register) -> None:
    register("iou", "fsseg.evaluation.metrics:Iou")
    register("volume_error", "fsseg.evaluation.metrics:VolumeError")
    register("hd95", "fsseg.evaluation.metrics:Hd95")
    register("assd", "fsseg.evaluation.metrics:Assd")
    register("nsd", "fsseg.evaluation.metrics:Nsd")
    register("calibration_error", "fsseg.evaluation.calibration_error:CalibrationError")
