"""Errors for users. Every message is one line that states what was given, what was expected and what to do."""


class SchNetError(ValueError):
    """Base class of the package's errors; the command line prints them as one line."""


class CheckpointError(SchNetError):
    """A checkpoint is missing, truncated, foreign, of a newer format or tampered with."""


class RegistryError(SchNetError):
    """A registry entry does not exist, or its files are not those of its card."""


class DownloadError(SchNetError):
    """A file cannot be downloaded: no network, no such address, or a broken connection."""


class StructureError(SchNetError):
    """A model cannot be evaluated on these atoms."""


class DataError(SchNetError):
    """Training or test data cannot be read or trusted."""


class ConfigError(SchNetError):
    """A configuration is not valid."""


class TrainingError(SchNetError):
    """A training cannot start or resume."""


class DivergenceError(TrainingError):
    """The loss or the gradient of a training became NaN or infinite."""


class CalibrationError(SchNetError):
    """An ensemble cannot be calibrated: too few members or frames, or frames that its members have seen."""


class ExportError(SchNetError):
    """A model that another program cannot run, or a program that cannot be made to run it."""


class MonitorError(SchNetError):
    """A run cannot be watched as requested."""


class UncertaintyExceeded(SchNetError):
    """A monitored run reached a frame on which the ensemble cannot be trusted."""


class LearnError(SchNetError):
    """On-the-fly learning cannot begin or resume."""


class RunawayError(SchNetError):
    """The atoms of a run have left the region in which a potential is valid.

    Parameters
    ----------
    message
        What happened, at which step, and where the last good frame is.
    step
        Step at which it was noticed; below zero in an equilibration, which ends at step 0.
    """

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step
