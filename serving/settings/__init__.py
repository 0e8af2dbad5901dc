"""Every default once: what engines and servers are started with."""

from serving.settings.engine import EngineSettings
from serving.settings.load import load_server_settings, load_settings
from serving.settings.server import ServerSettings

__all__ = ["EngineSettings", "ServerSettings", "load_server_settings", "load_settings"]
