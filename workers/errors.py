"""What can go wrong in the engine, as types.

    BackboneError
    |-- BackboneUnknownError       no such name in the catalogue, nor a folder of that name
    |-- BackboneMissingError       known, but not on this machine
    |-- BackboneCorruptError       a file is not what its digest or its header says
    |-- BackboneUnsupportedError   a model this engine does not run, or will not (remote code)
    `-- BackboneFetchError         the weights could not be had
    DeviceUnavailableError         a device that is not there, lacks something, or is lost
    RowError                       a row that cannot be run: empty, too long, a foreign token id
    TaskMemoryError                a task larger than the whole memory budget (a TaskError)
    TaskLoadError                  a task that could not be loaded for no fault of it (a TaskError)
    TaskUnsupportedError           an op at a site that the engine has no place for (a TaskError)
    PetTaskError                   a wrong use of PetS's interface (a TaskError)

Every message says what to do.
"""

from tasks.errors import TaskError


class BackboneError(Exception):
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


class DeviceUnavailableError(Exception):
    """A device that is not there, lacks something that it needs, or no longer computes."""


class RowError(ValueError):
    """A row that cannot be run: empty, too long, or with a foreign token id."""


class TaskMemoryError(TaskError):
    """A task is larger than the whole memory budget."""


class TaskLoadError(TaskError):
    """A task could not be loaded for no fault of it: no memory left, a disk that fails."""


class TaskUnsupportedError(TaskError):
    """An op at a site where the engine has no place for it."""


class PetTaskError(TaskError):
    """PetS's interface was asked for a task that is not what, or where, the caller thinks."""
