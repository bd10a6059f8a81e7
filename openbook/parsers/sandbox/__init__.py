"""Files are parsed in processes of their own: `pool` is their parent, `tasks` their code, `protocol` what both say."""
