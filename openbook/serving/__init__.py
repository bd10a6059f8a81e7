"""HTTP and MCP servers: edges over the synchronous core, closed by default, without state between requests. Extra: `serve`."""
