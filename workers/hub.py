"""Backbones by hub name, through `huggingface_hub`, where a hub can be reached."""

from pathlib import Path

from workers.backbone_folder import FOLDER_FILES
from workers.errors import BackboneFetchError, BackboneMissingError


def download_from_hub(hub_id: str, revision: str | None, folder: Path) -> Path:
    """Download the three files of a backbone into `folder`; nothing else is asked for.

    Args:
        hub_id: `organisation/model`.
        revision: A commit, tag or branch; None is the main branch.
        folder: Where to put them.

    Returns:
        `folder`, for `backbone_store.add`.

    Raises:
        BackboneFetchError: If the hub cannot be reached or has no such model.
        BackboneMissingError: If the model has no safetensors weights or no fast tokenizer.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    except ImportError as error:
        raise BackboneFetchError(
            "huggingface_hub is not installed: install petstream[worker], or add a folder that "
            "you have with 'petstream models add NAME FOLDER'"
        ) from error
    try:
        snapshot_download(
            hub_id, revision=revision, local_dir=folder, allow_patterns=list(FOLDER_FILES)
        )
    except HFValidationError as error:
        raise BackboneFetchError(f"{hub_id!r} is no hub name: {error}") from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        # Connection errors of the HTTP client, timeouts and "not in the local cache" are OSError.
        raise BackboneFetchError(
            f"could not get {hub_id} from the hub ({type(error).__name__}): check the name and "
            "the network; offline, copy the model's folder here and run "
            "'petstream models add NAME FOLDER'"
        ) from error
    missing = [file for file in FOLDER_FILES if not (folder / file).is_file()]
    if missing:
        raise BackboneMissingError(
            f"{hub_id} has no {', '.join(missing)}; convert it (save_pretrained writes both) and "
            "add the folder with 'petstream models add NAME FOLDER'"
        )
    return folder
