"""Serving: the edges (HTTP, MCP, web page) over the synchronous core."""
