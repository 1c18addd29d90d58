"""What can go wrong in the engine, as types.

    WorkerError
    ├── BackboneError
    │   ├── BackboneUnknownError       no such name in the catalogue, nor a folder of that name
    │   ├── BackboneMissingError       known, but not on this machine
    │   ├── BackboneCorruptError       a file is not what its digest or its header says
    │   ├── BackboneUnsupportedError   a model this engine does not run, or will not (remote code)
    │   └── BackboneFetchError         the weights could not be had
    ├── RowError                       a row that cannot be run: empty, too long, a foreign id
    └── TaskError
        ├── TaskUnavailableError       its artifact is missing, invalid, or not the one asked for
        ├── TaskMismatchError          it was made for another backbone or level
        └── TaskMemoryError            it does not fit beside the tasks in use

Every message says what to do.
"""


class WorkerError(Exception):
    """Anything below."""


class BackboneError(WorkerError):
    """Something about a backbone."""


class BackboneUnknownError(BackboneError):
    """No such name in the catalogue, nor a folder of that name."""


class BackboneMissingError(BackboneError):
    """Known, but not on this machine."""


class BackboneCorruptError(BackboneError):
    """A file is not what its digest or its header says."""


class BackboneUnsupportedError(BackboneError):
    """A model this engine does not run, or will not (remote code)."""


class BackboneFetchError(BackboneError):
    """The weights could not be had."""


class RowError(WorkerError):
    """A row that cannot be run: empty, too long, or with a foreign token id."""


class TaskError(WorkerError):
    """Something about a task's weights."""


class TaskUnavailableError(TaskError):
    """Its artifact is missing, invalid, or not the one asked for."""


class TaskMismatchError(TaskError):
    """It was made for another backbone or level."""


class TaskMemoryError(TaskError):
    """It does not fit beside the tasks in use."""
