package control

import (
	"context"
	"io"
	"time"

	"peercompute/pkg/mesh"
)

// Jobs is what a node answers about runs that end by themselves.
type Jobs interface {
	// Run runs a job while the caller waits. It calls start once, when the job is
	// accepted.
	Run(ctx context.Context, r Run, start StartJob) (RunResult, error)
	Receipts(ctx context.Context, q ReceiptQuery) ([]Receipt, error)
	Receipt(ctx context.Context, id string) (Receipt, error)
	CheckReceipt(ctx context.Context, f ReceiptFile) (Receipt, error)
}

// StartJob gives a job its streams; s says where it runs.
type StartJob func(s Started) (stdin io.Reader, stdout, stderr io.Writer, err error)

// Run is POST /v1/run (see Client.Run).
type Run struct {
	Peer  string    `json:"peer"`            // name or ID; "" or "self" = this machine if no other choice is possible
	Any   bool      `json:"any,omitempty"`   // on whichever trusted peer accepts it
	Spec  mesh.Spec `json:"spec"`            // Runtime wasm, Shape job
	Whole bool      `json:"whole,omitempty"` // the input is a file: the program's reads are full
}

// Started says where a job runs.
type Started struct {
	ID   mesh.WorkloadID `json:"id"`
	Peer string          `json:"peer"` // local name, or "self"
}

// RunResult is how a job ended.
type RunResult struct {
	mesh.Exit
	ID      mesh.WorkloadID `json:"id"`
	Peer    string          `json:"peer"`
	Receipt *Receipt        `json:"receipt,omitempty"`
}

// ReceiptQuery narrows GET /v1/receipts.
type ReceiptQuery struct {
	Peer  string // who ran it, or whom it was run for; empty = all
	Limit int    // the newest so many; 0 = all that are kept
}

// Receipt is what a peer signed about a run. Digests are "sha256:…".
type Receipt struct {
	ID           mesh.WorkloadID `json:"id"`
	Role         string          `json:"role,omitempty"` // asked (it ran for this machine), ran (this machine ran it) or own
	Peer         string          `json:"peer"`           // who ran it and signed: local name, or the ID of one that is not known
	PeerID       mesh.PeerID     `json:"peer_id"`
	Asker        string          `json:"asker"`
	AskerID      mesh.PeerID     `json:"asker_id"`
	Request      string          `json:"request"`
	Module       string          `json:"module"`
	Spec         string          `json:"spec"`
	Seed         string          `json:"seed"` // hex
	Input        string          `json:"input"`
	InputSize    uint64          `json:"input_size"`
	Whole        bool            `json:"whole"`
	Output       string          `json:"output"`
	OutputSize   uint64          `json:"output_size"`
	Log          string          `json:"log"`
	LogSize      uint64          `json:"log_size"`
	Record       string          `json:"record"`
	RecordSize   uint64          `json:"record_size"`
	Cut          bool            `json:"cut,omitempty"`
	Repeat       bool            `json:"repeat,omitempty"`
	Exit         int             `json:"exit"`
	Kind         string          `json:"kind,omitempty"` // why it was ended from outside
	Reason       string          `json:"reason,omitempty"`
	Fuel         uint64          `json:"fuel"`
	Schedule     string          `json:"schedule"`
	PeakMemory   uint64          `json:"peak_memory"` // bytes
	Capabilities []string        `json:"capabilities"`
	Started      time.Time       `json:"started"`
	Ended        time.Time       `json:"ended"`
	Flaw         string          `json:"flaw,omitempty"` // in what it contradicts what was received
	Verified     []Verification  `json:"verified,omitempty"`
	Envelope     []byte          `json:"envelope,omitempty"` // as signed; not in lists
}

// Verification is what came of repeating a run on another peer.
type Verification struct {
	By      string          `json:"by"`
	At      time.Time       `json:"at"`
	Receipt mesh.WorkloadID `json:"receipt"` // of the repeated run
	Agrees  bool            `json:"agrees"`
	Differs []string        `json:"differs,omitempty"`
}

// ReceiptFile is a receipt outside of a node, and POST /v1/receipts/check. Only the
// envelope counts; what else such a file says is for people.
type ReceiptFile struct {
	Format   string   `json:"format"` // ReceiptFormat
	Envelope []byte   `json:"envelope"`
	Receipt  *Receipt `json:"receipt,omitempty"`
}

// ReceiptFormat names the form of a ReceiptFile.
const ReceiptFormat = "peercompute-receipt/1"
