package wire

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"peercompute/pkg/mesh"
)

// The protocols that a node speaks, besides libp2p's own identify and ping.
const (
	ProtocolHello   = "/peercompute/hello/1"
	ProtocolRequest = "/peercompute/request/1"
)

// Version is the version of the signed payloads.
const Version = 1

// Limits of what is read from a peer, in bytes.
const (
	MaxRequest  = 256 << 10 // one request envelope
	MaxResponse = 1 << 20   // one response envelope
	MaxHello    = 4 << 10
	MaxModule   = 64 << 20 // one WASM module
)

// The window in which a request is fresh.
const (
	MaxDrift = 5 * time.Minute // between the two clocks, either way
	Lifetime = 5 * time.Minute // from issued to expires, at most
)

// Verb says what a request asks for. Numbers are append-only.
type Verb uint16

// The verbs.
const (
	VerbPutModule     Verb = 1 // announce a module; its bytes follow if it is not there yet
	VerbDeploy        Verb = 2
	VerbStop          Verb = 3
	VerbRemove        Verb = 4
	VerbList          Verb = 5
	VerbInspect       Verb = 6
	VerbWatch         Verb = 7 // a stream of states until the workload is ready or final
	VerbLogs          Verb = 8
	VerbRun           Verb = 9  // a job in the foreground
	VerbPublish       Verb = 10 // peer to gateway: route a name to me
	VerbUnpublish     Verb = 11 // peer to gateway
	VerbExpose        Verb = 12 // deployer to peer: give the workload a public name
	VerbHide          Verb = 13 // deployer to peer: withdraw it
	VerbExplain       Verb = 14 // what would be decided of a deploy; nothing is done
	VerbRotate        Verb = 15 // another key takes the sender's place
	VerbPutInput      Verb = 20 // announce the input of a job; its bytes follow
	VerbSubmit        Verb = 21 // queue a job
	VerbListJobs      Verb = 22
	VerbJob           Verb = 23 // one of them, with its receipt
	VerbJobOutput     Verb = 24 // a stream of what it wrote
	VerbCancelJob     Verb = 25
	VerbPushImage     Verb = 30 // announce an image; the parts of it that are not there follow
	VerbImages        Verb = 31 // that the asker pushed
	VerbPrune         Verb = 32 // of these, remove what no workload uses
	VerbFindImage     Verb = 33 // would a deploy find it there?
	VerbForward       Verb = 34 // one connection to a port of a workload
	VerbExec          Verb = 35 // run a program inside a workload
	VerbCopyOut       Verb = 36 // a tar archive of files of a workload
	VerbCopyIn        Verb = 37 // unpack a tar archive in a workload
	VerbStats         Verb = 38 // what workloads use, once or again and again
	VerbRestart       Verb = 39 // end what runs of a workload, and begin anew
	VerbVolumes       Verb = 40 // that the asker has
	VerbRemoveVolume  Verb = 41
	VerbBackupVolume  Verb = 42 // a stream of a volume's files
	VerbRestoreVolume Verb = 43 // make a volume; the archive of its files follows
	VerbHistory       Verb = 44 // a workload's revisions
	VerbRollback      Verb = 45 // make an earlier one serve again
	VerbSetSecret     Verb = 46 // sealed to the peer
	VerbRemoveSecret  Verb = 47
	VerbSecrets       Verb = 48 // that the asker has
	VerbStatement     Verb = 49 // for how long the asker's containers were up, signed
)

var verbNames = map[Verb]string{
	VerbPutModule: "put-module", VerbDeploy: "deploy", VerbStop: "stop", VerbRemove: "remove", VerbList: "list",
	VerbInspect: "inspect", VerbWatch: "watch", VerbLogs: "logs", VerbRun: "run", VerbPublish: "publish",
	VerbUnpublish: "unpublish", VerbExpose: "expose", VerbHide: "hide", VerbExplain: "explain", VerbRotate: "rotate",
	VerbPutInput: "put-input", VerbSubmit: "submit-job", VerbListJobs: "list-jobs", VerbJob: "job", VerbJobOutput: "job-output",
	VerbCancelJob: "cancel-job", VerbForward: "port-forward", VerbPushImage: "push-image", VerbImages: "images", VerbPrune: "prune-images",
	VerbFindImage: "find-image", VerbStats: "stats", VerbHistory: "history", VerbRollback: "rollback", VerbExec: "exec", VerbCopyOut: "copy-out", VerbCopyIn: "copy-in", VerbRestart: "restart",
	VerbSetSecret: "set-secret", VerbRemoveSecret: "remove-secret", VerbSecrets: "secrets", VerbStatement: "statement",
	VerbVolumes: "volumes", VerbRemoveVolume: "remove-volume", VerbBackupVolume: "backup-volume", VerbRestoreVolume: "restore-volume",
}

// String is the verb's stable name; it is also part of the signed payload type.
func (v Verb) String() string {
	if s, ok := verbNames[v]; ok {
		return s
	}
	return fmt.Sprintf("verb-%d", uint16(v))
}

// Nonce makes a request unique. Incarnation names one life of a state file.
type (
	Nonce       [16]byte
	Incarnation [16]byte
)

// NewNonce draws a nonce from the system's randomness.
func NewNonce() (n Nonce) {
	rand.Read(n[:]) // never fails: crypto/rand aborts the process instead
	return n
}

// Request is the signed payload of a request.
type Request struct {
	Version     uint            `cbor:"1,keyasint"`
	Verb        Verb            `cbor:"2,keyasint"`
	From        mesh.PeerID     `cbor:"3,keyasint"` // the signer, and the peer at the other end of the connection
	To          mesh.PeerID     `cbor:"4,keyasint"` // the peer that may act on it
	Incarnation Incarnation     `cbor:"5,keyasint"` // of To's state file
	Nonce       Nonce           `cbor:"6,keyasint"`
	Issued      int64           `cbor:"7,keyasint"`           // Unix ms, sender's clock
	Expires     int64           `cbor:"8,keyasint"`           // Unix ms, at most Lifetime later
	Challenge   []byte          `cbor:"9,keyasint,omitempty"` // To's challenge, when clocks disagree
	Body        cbor.RawMessage `cbor:"10,keyasint"`          // one of the Body types, whole
}

// Digest identifies the exact bytes of an envelope.
type Digest [sha256.Size]byte

// Response is the signed payload of an answer. It is bound to one request.
type Response struct {
	Version uint            `cbor:"1,keyasint"`
	Verb    Verb            `cbor:"2,keyasint"`
	From    mesh.PeerID     `cbor:"3,keyasint"` // the peer that answers
	To      mesh.PeerID     `cbor:"4,keyasint"`
	Request Digest          `cbor:"5,keyasint"` // of the request envelope
	Time    int64           `cbor:"6,keyasint"` // Unix ms
	Error   *Error          `cbor:"7,keyasint,omitempty"`
	Body    cbor.RawMessage `cbor:"8,keyasint,omitempty"`
}

// Error is the part of a mesh.Error that crosses the wire. Its strings are
// bounded when they are made and again when they are read.
type Error struct {
	Kind mesh.Kind `cbor:"1,keyasint"`
	Rule string    `cbor:"2,keyasint,omitempty"`
	Msg  string    `cbor:"3,keyasint"`
	Hint string    `cbor:"4,keyasint,omitempty"` // only hints that are meant for the asker
}

const maxErrorText = 1024

// NewError keeps of err what a peer may see: kind, rule and message. A hint is
// for the person at this machine, unless a rule refused: then it tells the asker
// what to ask for.
func NewError(err error) *Error {
	e := mesh.AsError(err)
	w := &Error{Kind: e.Kind, Rule: clip(e.Rule), Msg: clip(e.Msg)}
	if e.Rule != "" {
		w.Hint = clip(e.Hint)
	}
	return w
}

// Err is the error as this side sees it.
func (e *Error) Err() *mesh.Error {
	return &mesh.Error{Kind: e.Kind, Rule: clip(e.Rule), Msg: clip(e.Msg), Hint: clip(e.Hint)}
}

func clip(s string) string {
	if len(s) > maxErrorText {
		s = s[:maxErrorText]
	}
	return s
}
