"""What can be wrong with a task: its artifact, its place in the store, its registration.

    TaskError
    |-- ArtifactError            the folder is not a valid artifact; nothing of it was used
    |   |-- ArtifactMissing      no such folder, or a file it must hold is absent
    |   |-- PathEscape           a name or a link that leads out of the folder
    |   |-- FormatForbidden      a file that is not safetensors (pickles, archives, arrays)
    |   |-- UnsupportedFormat    `format` is of a later release
    |   |-- BadDescription       task.json is not JSON of the documented form
    |   |-- FileTooLarge         more bytes than the description and the backbone allow
    |   |-- ChecksumMismatch     the bytes are not those that the description or reference pins
    |   |-- BadWeightFile        not a well-formed safetensors file
    |   |-- TensorMismatch       the tensors are not those the PET kind and backbone call for
    |   |   |-- MissingTensor
    |   |   |-- UnexpectedTensor
    |   |   |-- TensorShapeMismatch
    |   |   `-- TensorTypeMismatch
    |   |-- NonFiniteWeights     NaN or infinity
    |   |-- BadIndices           a gap code that is cut, too short or points outside its weight
    |   |-- DimensionsMismatch   a head without a last layer gives other vectors than described
    |   |-- RankOutOfRange       a LoRA rank or bottleneck that the backbone cannot have
    |   |-- SiteNotFound         a layer or place that the backbone or the engine does not have
    |   |-- PartsConflict        parts of a combined PET that change the same thing
    |   |-- TooManyTokens        `max_tokens` beyond the backbone's positions
    |   |-- BackboneUnknown      the backbone is not on this machine
    |   |-- BackboneMismatch     trained on other backbone weights than this machine's
    |   |-- LevelNotFound        the task has no such level
    |   `-- ArtifactExists       the folder to write is already there
    |-- StoreError
    |   |-- TaskNotInStore       no such task or revision in the store
    |   `-- StoreUnusable        the store's folder cannot be read or written
    |-- RegistryError
    |   |-- UnknownTask          the name was never registered
    |   |-- UnknownRevision      the task has no such revision
    |   |-- TaskIsRetired        the task no longer serves
    |   |-- BadAlias             not a name an alias can have, or one too many
    |   |-- TooManyRevisions     the task's event would outgrow its topic
    |   `-- RevisionConflict     that revision is registered with other content
    |-- ImportRefused            a checkpoint of another library cannot become a task
    |   |-- OriginUnknown        its files are not those of a library that is read
    |   |-- BadCheckpoint        a file of it is damaged, too large or not what it must be
    |   |-- PickleCarriesCode    a `.bin` or `.pt` asks for more than tensors
    |   |-- PickleTooCostly      reading a `.bin` or `.pt` took more memory or time than it may
    |   |-- KindUnsupported      what was trained cannot share the backbone's operators
    |   |-- KeyMissing           a tensor is not there that another one or the config calls for
    |   |-- HeadMissing          there is no head, or not all of it
    |   |-- WrongBackbone        it was trained on a model of another shape or family
    |   `-- LabelsMismatch       the labels given are not as many as the head's
    `-- ExportRefused            the other format has no place for what the task does

Each message says what is wrong and what to do.
"""


class TaskError(Exception):
    """Base of everything that `tasks` raises for a caller's or an artifact's fault."""


class ArtifactError(TaskError):
    """The folder is not a valid artifact."""


class ArtifactMissing(ArtifactError):
    """The folder or a file that it must hold is absent."""


class PathEscape(ArtifactError):
    """A file name or a link leads out of the artifact's folder."""


class FormatForbidden(ArtifactError):
    """A file format that can carry code or hide its size; only safetensors is read."""


class UnsupportedFormat(ArtifactError):
    """The artifact's format number is not one this release reads."""


class BadDescription(ArtifactError):
    """`task.json` is not a description of the documented form."""


class FileTooLarge(ArtifactError):
    """A file has more bytes than a valid one can have."""


class ChecksumMismatch(ArtifactError):
    """The bytes read are not the bytes that were pinned."""


class BadWeightFile(ArtifactError):
    """The bytes are not a well-formed safetensors file."""


class TensorMismatch(ArtifactError):
    """The tensors are not exactly those that the PET kind and the backbone call for."""


class MissingTensor(TensorMismatch):
    """A required tensor is absent."""


class UnexpectedTensor(TensorMismatch):
    """A tensor that the PET kind does not have."""


class TensorShapeMismatch(TensorMismatch):
    """A tensor's shape does not fit the backbone, the labels or its partner tensor."""


class TensorTypeMismatch(TensorMismatch):
    """A tensor's element type is not one the format allows for it."""


class NonFiniteWeights(ArtifactError):
    """A tensor holds NaN or infinity, or would on being stored."""


class BadIndices(ArtifactError):
    """A gap code is damaged or points outside its weight matrix."""


class DimensionsMismatch(ArtifactError):
    """The head of an embedding gives vectors of another length than the description says."""


class RankOutOfRange(ArtifactError):
    """A LoRA rank or an adapter bottleneck larger than the backbone's matrices."""


class SiteNotFound(ArtifactError):
    """A PET acts at a layer that the backbone does not have."""


class PartsConflict(ArtifactError):
    """Two parts of a combined PET change the same thing in ways that cannot be joined."""


class TooManyTokens(ArtifactError):
    """`max_tokens` exceeds the positions that the backbone has embeddings for."""


class BackboneUnknown(ArtifactError):
    """A backbone's shape is needed and not known on this machine."""


class BackboneMismatch(ArtifactError):
    """The task was trained on other backbone weights than those at hand."""


class LevelNotFound(ArtifactError):
    """The task has no such level."""


class ArtifactExists(ArtifactError):
    """The folder to be written is already there."""


class StoreError(TaskError):
    """The store of tasks on this machine."""


class TaskNotInStore(StoreError):
    """No such task or revision in the store."""


class StoreUnusable(StoreError):
    """The store's folder cannot be read or written."""


class RegistryError(TaskError):
    """A change of a task's registration that cannot be made."""


class UnknownTask(RegistryError):
    """The name was never registered."""


class UnknownRevision(RegistryError):
    """The task has no such revision."""


class TaskIsRetired(RegistryError):
    """The task no longer serves."""


class BadAlias(RegistryError):
    """Not a name that an alias can have, or one alias too many."""


class TooManyRevisions(RegistryError):
    """The task's event would outgrow what its topic accepts."""


class RevisionConflict(RegistryError):
    """The revision is registered already, with other content."""


class ImportRefused(TaskError):
    """A checkpoint of another library cannot become a task."""


class OriginUnknown(ImportRefused):
    """The files are not those of a library whose checkpoints are read."""


class BadCheckpoint(ImportRefused):
    """A file of the checkpoint is damaged, too large or not what it must be."""


class PickleCarriesCode(ImportRefused):
    """A pickle names something that tensors do not need; none of it was run."""


class PickleTooCostly(ImportRefused):
    """Reading a pickle took, or would take, more memory or time than it may."""


class KindUnsupported(ImportRefused):
    """What was trained cannot share the backbone's operators with other tasks."""


class KeyMissing(ImportRefused):
    """A tensor is not there that another tensor or the configuration calls for."""


class HeadMissing(ImportRefused):
    """The checkpoint has no head, or not all of it."""


class WrongBackbone(ImportRefused):
    """The checkpoint was trained on a model of another shape or family."""


class LabelsMismatch(ImportRefused):
    """The labels given are not as many as the head has rows."""


class ExportRefused(TaskError):
    """The other format has no place for what the task does."""
