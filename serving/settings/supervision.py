"""When an engine is asked, taken for dead, started again and given up: every default once."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from serving.settings.engine import PREFIX, EngineSettings, Seconds


class SupervisionSettings(EngineSettings):
    """Settings of whoever keeps engines up; frozen, unset fields come from `POLYVEC_*`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, use_attribute_docstrings=True
    )

    engine_start_timeout_s: Seconds = 1800.0
    """An engine that has not come up within this is given up, or started again if it once was up."""

    probe_interval_s: Seconds = 5.0
    """An engine that has answered nothing for this long is asked for one token."""

    stall_timeout_s: Seconds = 300.0
    """An engine with work that answers no prompt for this long is taken for dead."""

    max_engine_restarts: Annotated[int, Field(ge=0)] = 3
    """Restarts of one engine within `engine_restart_window_s`; past it the process exits with 1."""

    engine_restart_window_s: Seconds = 900.0
    """See `max_engine_restarts`."""
