"""The built-in components, registered through the same hooks as anybody's."""

from fsseg.hookspecs import Register, hookimpl


@hookimpl
def register_datasets(register: Register) -> None:
    register("abdomen_phantom", "fsseg.data.phantom:AbdomenPhantom")
    register("chaos_t2", "fsseg.data.folders:ChaosT2")
    register("sabs", "fsseg.data.folders:Sabs")
    register("cmr", "fsseg.data.folders:Cmr")
    register("nifti", "fsseg.data.folders:NiftiFolder")


@hookimpl
def register_supervoxels(register: Register) -> None:
    register("felzenszwalb", "fsseg.data.supervoxels:Felzenszwalb")
    register("slic", "fsseg.data.slic:Slic")
    register("stored", "fsseg.data.stored:Stored")


@hookimpl
def register_backbones(register: Register) -> None:
    register("timm", "fsseg.backbones.timm:TimmBackbone")
    register("deeplab_resnet101", "fsseg.backbones.deeplab:DeepLabResNet101")


@hookimpl
def register_prototypes(register: Register) -> None:
    register("map", "fsseg.prototypes:Map")
    register("em_gmm", "fsseg.prototypes:EmGmm")


@hookimpl
def register_heads(register: Register) -> None:
    register("adnet", "fsseg.heads:AdNet")
    register("adnetpp", "fsseg.heads:AdNetPp")
    register("tpm", "fsseg.heads:Tpm")


@hookimpl
def register_thresholds(register: Register) -> None:
    register("fixed", "fsseg.thresholds:Fixed")
    register("ce_t", "fsseg.thresholds:CeT")
    register("avg_est", "fsseg.thresholds:AvgEst")
    register("lin_est", "fsseg.thresholds:LinEst")
    register("profile", "fsseg.thresholds:Profile")
    register("ocp", "fsseg.thresholds:Ocp")


@hookimpl
def register_refiners(register: Register) -> None:
    register("none", "fsseg.refiners:Unrefined")
    register("component_3d", "fsseg.refiners:Component3d")
    register("smooth_3d", "fsseg.refiners:Smooth3d")
    register("amount", "fsseg.refiners:Amount")
    register("position", "fsseg.refiners:Position")
    register("query_informed", "fsseg.refiners:QueryInformed")


@hookimpl
def register_metrics(register: Register) -> None:
    register("iou", "fsseg.measures:Iou")
    register("volume_error", "fsseg.measures:VolumeError")
    register("hd95", "fsseg.distances:Hd95")
    register("assd", "fsseg.distances:Assd")
    register("nsd", "fsseg.distances:Nsd")
