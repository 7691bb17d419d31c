package mesh

// Check is one rule as it was applied to one question, for people to read. Its
// amounts are text, because every rule has its own unit. The zero value does not
// pass.
type Check struct {
	Rule   string `json:"rule" cbor:"1,keyasint"`                       // "grant.memory"
	Want   string `json:"want,omitempty" cbor:"2,keyasint,omitempty"`   // what is asked for
	Held   string `json:"held,omitempty" cbor:"3,keyasint,omitempty"`   // what is in use already, where that counts
	Limit  string `json:"limit,omitempty" cbor:"4,keyasint,omitempty"`  // what is allowed
	Pass   bool   `json:"pass" cbor:"5,keyasint"`                       //
	Reason string `json:"reason,omitempty" cbor:"6,keyasint,omitempty"` // why it does not pass: the shortfall
	Ask    string `json:"ask,omitempty" cbor:"7,keyasint,omitempty"`    // the flag of `peerctl peers allow` that would lift the limit
}
