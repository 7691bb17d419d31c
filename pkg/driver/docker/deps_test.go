package docker

import (
	_ "github.com/coder/websocket"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "go.uber.org/goleak"
	_ "pgregory.net/rapid"
)
