// A module of its own, outside of the workspace: it makes files for tests, and is no part of them.
module tinygguf

go 1.26
