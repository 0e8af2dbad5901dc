"""Images on their way to the engine: decoded, resized and cut into patches beside the process that serves."""
