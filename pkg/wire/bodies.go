package wire

import "peercompute/pkg/mesh"

// The bodies of requests and answers, by verb. Field numbers are append-only.

// PutModule announces a WASM module: digest ("sha256:…") and size in bytes.
type PutModule struct {
	Digest string `cbor:"1,keyasint"`
	Size   int64  `cbor:"2,keyasint"`
}

// PutModuleReply says whether the bytes must follow, exactly Size of them.
type PutModuleReply struct {
	Have bool `cbor:"1,keyasint"`
}

// Deploy asks to run a workload, or where the asker has one of that name, to update it.
type Deploy struct {
	Spec     mesh.Spec `cbor:"1,keyasint"`
	Recreate bool      `cbor:"2,keyasint,omitempty"` // an update stops what runs before it starts the new one
}

// Explained is what the peer would decide of a deploy, rule by rule, in the order
// in which it asks them. It is signed like any answer, and true of that moment only.
type Explained struct {
	Checks []mesh.Check `cbor:"1,keyasint"`
	Spec   mesh.Spec    `cbor:"2,keyasint"` // with defaults filled in
}

// Accepted is the signed acceptance of a deploy: evidence for the asker.
type Accepted struct {
	Workload mesh.WorkloadID `cbor:"1,keyasint"`
	Spec     mesh.Spec       `cbor:"2,keyasint"` // with defaults filled in
	Revision int             `cbor:"3,keyasint,omitempty"`
	Recreate bool            `cbor:"4,keyasint,omitempty"` // the revision before it is stopped first
}

// Ref names one workload (stop, remove, inspect, watch, hide).
type Ref struct {
	Workload mesh.WorkloadID `cbor:"1,keyasint"`
	Force    bool            `cbor:"2,keyasint,omitempty"` // remove: stop it first if it runs
}

// View is a workload as its owner may see it.
type View struct {
	Workload mesh.Workload `cbor:"1,keyasint"`
	Status   mesh.Status   `cbor:"2,keyasint"`
	Revision int           `cbor:"10,keyasint,omitempty"` // that serves
	Update   *Update       `cbor:"11,keyasint,omitempty"` // the one that is to take over, or could not
}

// Update is how a revision stands that does not serve.
type Update struct {
	Revision int         `cbor:"1,keyasint"`
	Status   mesh.Status `cbor:"2,keyasint"`
}

// History is what a peer remembers of a workload's revisions.
type History struct {
	Revisions []Revision `cbor:"1,keyasint"` // oldest first
	Truncated bool       `cbor:"2,keyasint,omitempty"`
}

// Revision is one version of a workload.
type Revision struct {
	Number  int         `cbor:"1,keyasint"`
	Image   string      `cbor:"2,keyasint,omitempty"`
	Digest  string      `cbor:"3,keyasint,omitempty"` // what ran, once it is known
	By      mesh.PeerID `cbor:"4,keyasint"`
	Time    int64       `cbor:"5,keyasint"`           // Unix ms
	Outcome string      `cbor:"6,keyasint"`           // one of the Outcome words
	Failure string      `cbor:"7,keyasint,omitempty"` // why it failed
	Note    string      `cbor:"8,keyasint,omitempty"`
}

// The outcomes of a revision.
const (
	OutcomeServing  = "serving"
	OutcomeComing   = "coming"   // it takes over once it is ready
	OutcomeReplaced = "replaced" // it served
	OutcomeFailed   = "failed"   // it never did
	OutcomeGivenUp  = "given up" // it never did, because a later one was asked for
)

// Rollback asks for an earlier revision again.
type Rollback struct {
	Workload mesh.WorkloadID `cbor:"1,keyasint"`
	To       int             `cbor:"2,keyasint,omitempty"` // 0 = the one that served before
	Recreate bool            `cbor:"3,keyasint,omitempty"`
}

// List is empty: list all workloads of the asker.
type List struct{}

// ListReply is the asker's workloads, oldest first.
type ListReply struct {
	Workloads []View `cbor:"1,keyasint"`
	Truncated bool   `cbor:"2,keyasint,omitempty"`
}

// Logs asks for a log as a stream.
type Logs struct {
	Workload mesh.WorkloadID `cbor:"1,keyasint"`
	Follow   bool            `cbor:"2,keyasint,omitempty"`
	Tail     int             `cbor:"3,keyasint,omitempty"`  // lines; 0 = all that is kept
	Since    int64           `cbor:"4,keyasint,omitempty"`  // Unix ns of the peer's clock; 0 = from the first that is kept
	Stream   mesh.LogStream  `cbor:"5,keyasint,omitempty"`  // one of the two only
	Entries  bool            `cbor:"6,keyasint,omitempty"`  // FrameLog instead of FrameStdout
	Revision int             `cbor:"10,keyasint,omitempty"` // 0 = the one that serves
}

// MaxLogText bounds the text of one entry, in bytes. Longer ones are sent in parts.
const MaxLogText = 32 << 10

// Expose asks the peer to publish a workload.
type Expose struct {
	Workload mesh.WorkloadID  `cbor:"1,keyasint"`
	Publish  mesh.Publication `cbor:"2,keyasint"`
}

// Publish asks a gateway to route a name to the sender. The label is computed by
// the gateway from name, sender and workload, so it cannot be chosen.
type Publish struct {
	Workload mesh.WorkloadID `cbor:"1,keyasint"`
	Name     string          `cbor:"2,keyasint"`
}

// Published is the public address that a gateway routes.
type Published struct {
	Label string `cbor:"1,keyasint"`
	URL   string `cbor:"2,keyasint"`
}

// Empty is the body of answers that say only "done".
type Empty struct{}

// The frame types (package frame) that follow an answer on the same stream.
const (
	FrameStdin  byte = 0 // job input; empty = its end
	FrameStdout byte = 1 // job output, or log bytes
	FrameStderr byte = 2
	FrameExit   byte = 3 // CBOR mesh.Exit; last
	FrameError  byte = 4 // CBOR Error; last
	FrameView   byte = 5 // CBOR View (watch)
	FrameEnd    byte = 6 // clean end of a stream without an exit
	FrameData   byte = 7 // module bytes
	// Of a job's run, before FrameExit.
	FrameRecord  byte = 8 // part of what it observed
	FrameReceipt byte = 9 // a receipt's envelope

	FrameLog   byte = 10 // CBOR mesh.LogEntry, of at most MaxLogText bytes of text
	FrameStats byte = 11 // CBOR StatsReply

	FrameResize byte = 12 // columns and rows of a terminal, two bytes each, big-endian
	FrameCredit byte = 13 // how many bytes of input were taken, four bytes, big-endian

	FrameCopied byte = 15 // CBOR Copied; last
)
