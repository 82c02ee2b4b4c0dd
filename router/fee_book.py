"""The fees that this process decides by: the file of the settings, or the default."""

from __future__ import annotations

import datetime as dt

from providers import fees_file
from providers.fees import FeeBook
from router.settings import PREFIX, PROVIDER_NAMES, Settings, SettingsError

SETTING = f"{PREFIX}FEES_FILE"


def fee_book(settings: Settings, today: dt.date) -> FeeBook:
    """Read at start; a line of a later day holds from that day by itself, a changed file from the next start.

    Raises SettingsError with one line that names the file and the first line of it that is wrong.
    """
    path = settings.fees_file
    if path is None:
        return FeeBook.default()
    try:
        return fees_file.load(path, providers=PROVIDER_NAMES, today=today)
    except fees_file.FeesFileError as error:
        more = "" if len(error.findings) == 1 else " (and more: `pointsman fees check` lists them)"
        raise SettingsError(f"setting {SETTING}: {path}:{error}{more}") from None
    except OSError as error:
        raise SettingsError(f"setting {SETTING}: {path} cannot be read: {error.strerror}") from None
