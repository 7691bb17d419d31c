package wire

// The bodies of requests about secrets. Field numbers are append-only.

// SetSecret keeps a secret of the asker, or another value of it.
type SetSecret struct {
	Name   string `cbor:"1,keyasint"`
	Sealed []byte `cbor:"2,keyasint"` // to the target's key, bound to asker, target and name; see pkg/secret
}

// RemoveSecret forgets one that no workload uses.
type RemoveSecret struct {
	Name string `cbor:"1,keyasint"`
}

// Secrets is empty: list all secrets of the asker.
type Secrets struct{}

// SecretsReply lists them, by name.
type SecretsReply struct {
	Secrets []KeptSecret `cbor:"1,keyasint"`
}

// KeptSecret is all that is told of one.
type KeptSecret struct {
	Name string   `cbor:"1,keyasint"`
	Set  int64    `cbor:"2,keyasint"`           // Unix ms of the peer's clock
	Used []string `cbor:"3,keyasint,omitempty"` // names of the workloads that get it
}
