"""The web page and its HTTP API (`derain serve`); needs the extra `serve`."""
