// Package errno is how WASI preview 1 says what went wrong: the few numbers of its
// list that something here answers with.
package errno

import "fmt"

// Errno is a WASI error number. Zero is success.
type Errno uint16

// The numbers, as WASI preview 1 gives them.
const (
	Success    Errno = 0
	TooBig     Errno = 1
	Access     Errno = 2
	Again      Errno = 6
	BadFD      Errno = 8
	Exist      Errno = 20
	Fault      Errno = 21
	FileBig    Errno = 22
	BadUTF8    Errno = 25
	Invalid    Errno = 28
	IO         Errno = 29
	IsDir      Errno = 31
	Loop       Errno = 32
	ManyFiles  Errno = 33
	LongName   Errno = 37
	NoEntry    Errno = 44
	NoSpace    Errno = 51
	NoSys      Errno = 52
	NotConn    Errno = 53
	NotDir     Errno = 54
	NotEmpty   Errno = 55
	NotSock    Errno = 57
	NotSup     Errno = 58
	NotAllowed Errno = 63
	Pipe       Errno = 64
	Range      Errno = 68
	SeekPipe   Errno = 70
	CrossDev   Errno = 75
	NotCapable Errno = 76
)

// Error makes an Errno an error, for logs and tests.
func (e Errno) Error() string { return fmt.Sprintf("WASI error %d", uint16(e)) }
