//go:build !unix

package archive

import "os"

const readFlags = os.O_RDONLY
