"""What can go wrong at a user's hand. Every message is one line: what was given, what was expected, what to do."""


class SchNetError(ValueError):
    """Base of the package's errors; the command line prints them as one line."""


class CheckpointError(SchNetError):
    """A checkpoint that is missing, truncated, foreign, of a newer format or tampered with."""


class RegistryError(SchNetError):
    """A registry entry that does not exist, or whose files are not those of its card."""


class DownloadError(SchNetError):
    """A file that cannot be fetched: no network, no such address, or a connection that broke."""


class StructureError(SchNetError):
    """Atoms a model cannot be evaluated on."""


class DataError(SchNetError):
    """Training or test data that cannot be read or trusted."""


class ConfigError(SchNetError):
    """A training configuration that is not valid."""


class TrainingError(SchNetError):
    """A training that cannot go on."""


class DivergenceError(TrainingError):
    """A training whose loss or gradient became NaN or infinite."""


class CalibrationError(SchNetError):
    """An ensemble that cannot be calibrated: too few members or frames, or frames that its members have seen."""


class ExportError(SchNetError):
    """A model that another program cannot run, or a program that cannot be made to run it."""


class MonitorError(SchNetError):
    """A run that cannot be watched as asked."""


class UncertaintyExceeded(SchNetError):
    """A monitored run reached a frame that the ensemble is not to be believed on."""


class LearnError(SchNetError):
    """On-the-fly learning that cannot begin or go on."""


class RunawayError(SchNetError):
    """A run whose atoms left what a potential is good for.

    Parameters
    ----------
    message
        What happened, at which step, and where the last good frame is.
    step
        The step at which it was noticed; below zero in an equilibration, which ends at step 0.
    """

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step
