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
	// RunQuorum runs a job on several peers. It calls start once, when all have ended,
	// and writes only what a quorum agrees on.
	RunQuorum(ctx context.Context, q RunQuorum, start StartJob) (RunResult, error)
	UploadInput(ctx context.Context, r io.Reader) (Input, error)
	SubmitJob(ctx context.Context, s SubmitJob) (Job, error)
	Jobs(ctx context.Context, peer string) ([]Job, error)
	// A job's ref is its ID or a unique prefix.
	Job(ctx context.Context, ref string) (Job, error)
	CancelJob(ctx context.Context, ref string) (Job, error)
	JobOutput(ctx context.Context, ref string, o JobOutput, start StartJob) (RunResult, error)
	Receipts(ctx context.Context, q ReceiptQuery) ([]Receipt, error)
	// Balance is what is owed between this machine and peers, or one of them.
	Balance(ctx context.Context, peer string) ([]Balance, error)
	Receipt(ctx context.Context, id string) (Receipt, error)
	Verify(ctx context.Context, v Verify) (VerifyResult, error)
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
	State   string          `json:"state"` // done, but for the output of a job that is not
	Receipt *Receipt        `json:"receipt,omitempty"`
	Quorum  *Quorum         `json:"quorum,omitempty"` // of a run on several peers
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

// SubmitJob is POST /v1/jobs: a job that nobody waits for. Its module and input were
// uploaded before.
type SubmitJob struct {
	Peer  string    `json:"peer"`
	Any   bool      `json:"any,omitempty"`
	Spec  mesh.Spec `json:"spec"`
	Input string    `json:"input,omitempty"` // digest that POST /v1/inputs gave; empty = no input
	Key   string    `json:"key,omitempty"`   // a second job with the same key on the same peer is the first
}

// Input is the answer to POST /v1/inputs, whose body is the input itself.
type Input struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// Job is a queued job, one that runs, or what came of one.
type Job struct {
	ID         mesh.WorkloadID `json:"id"`
	Name       string          `json:"name"`
	Peer       string          `json:"peer"` // where it is: local name, or "self"
	PeerID     mesh.PeerID     `json:"peer_id"`
	Owner      string          `json:"owner"`
	OwnerID    mesh.PeerID     `json:"owner_id"`
	Module     string          `json:"module"`
	State      string          `json:"state"` // queued, running, done; or unknown: its peer does not answer
	Submitted  time.Time       `json:"submitted"`
	Started    time.Time       `json:"started,omitzero"`
	Ended      time.Time       `json:"ended,omitzero"`
	Ahead      int             `json:"ahead,omitempty"`    // of the owner's jobs, queued before it
	Attempts   int             `json:"attempts,omitempty"` // runs begun; more than one after a crash of its peer
	Exit       *mesh.Exit      `json:"exit,omitempty"`     // of one that is done
	OutputSize int64           `json:"output_size"`
	LogSize    int64           `json:"log_size"`
	Dropped    bool            `json:"dropped,omitempty"` // its outputs are not kept any more
	Reason     string          `json:"reason,omitempty"`  // why it is unknown
}

// JobOutput is POST /v1/jobs/{id}/output; the answer is a stream of frames as of a
// foreground job. Of a job that is not done the last one has its state.
type JobOutput struct {
	Follow bool `json:"follow"` // until the job is done
	Quiet  bool `json:"quiet"`  // its end alone
}

// Verify is POST /v1/verify: repeat the run of a receipt on another peer.
type Verify struct {
	Receipt string `json:"receipt"`         // its ID or a unique prefix
	By      string `json:"by"`              // the peer that repeats it
	Input   string `json:"input,omitempty"` // digest that POST /v1/inputs gave; empty = what is kept
}

// VerifyResult is what came of it.
type VerifyResult struct {
	Agrees  bool     `json:"agrees"`
	Differs []string `json:"differs,omitempty"` // in what the repeated run came out differently
	Receipt Receipt  `json:"receipt"`
	Again   Receipt  `json:"again"` // of the repeated run
}
