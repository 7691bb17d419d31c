package mesh

import "time"

// LogStream says which of its two outputs a workload wrote to.
type LogStream string

// The streams. The zero value stands for both where one is chosen.
const (
	Stdout LogStream = "stdout"
	Stderr LogStream = "stderr"
)

// Valid reports whether s is one of the two, or both.
func (s LogStream) Valid() bool { return s == "" || s == Stdout || s == Stderr }

// LogEntry is a line that a workload wrote, or a part of one that was too long.
type LogEntry struct {
	Time   time.Time `cbor:"1,keyasint"` // when its host took it; zero if that is not known
	Stream LogStream `cbor:"2,keyasint"`
	Text   []byte    `cbor:"3,keyasint"` // as it was written, with its newline
}
