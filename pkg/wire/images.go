package wire

// The bodies of requests about images that peers push. Field numbers are append-only.

// PushImage announces an image. Its parts are the configuration and the layers, each
// as the plain archive that its digest names.
type PushImage struct {
	ID         string      `cbor:"1,keyasint"` // digest of the configuration, "sha256:…"
	ConfigSize int64       `cbor:"2,keyasint"` // bytes
	OS         string      `cbor:"3,keyasint"`
	Arch       string      `cbor:"4,keyasint"`           // as GOARCH has it
	Layers     []ImagePart `cbor:"5,keyasint"`           // the lowest first
	Name       string      `cbor:"6,keyasint,omitempty"` // what the sender calls it; for people
}

// ImagePart is a part of an image: its digest ("sha256:…") and size in bytes.
type ImagePart struct {
	Digest string `cbor:"1,keyasint"`
	Size   int64  `cbor:"2,keyasint"`
}

// PushImageReply says under which reference the image will be there, and which parts
// must follow: one gzip stream of what is left of each, in this order. After them
// comes FrameEnd once the image can be run, or FrameError.
type PushImageReply struct {
	Ref     string        `cbor:"1,keyasint"`
	Have    bool          `cbor:"2,keyasint,omitempty"` // it can be run already: nothing follows, not even a frame
	Missing []MissingPart `cbor:"3,keyasint,omitempty"`
}

// MissingPart is a part of which bytes are wanted, from an offset on.
type MissingPart struct {
	Digest string `cbor:"1,keyasint"`
	Offset int64  `cbor:"2,keyasint,omitempty"` // bytes that are there from an earlier attempt
}

// Images is empty: list all images that the asker pushed.
type Images struct{}

// ImagesReply lists them, the newest first.
type ImagesReply struct {
	Images []PushedImage `cbor:"1,keyasint"`
}

// PushedImage is an image as its pusher may see it.
type PushedImage struct {
	Ref     string `cbor:"1,keyasint"`
	ID      string `cbor:"2,keyasint"`
	Name    string `cbor:"3,keyasint,omitempty"`
	Size    int64  `cbor:"4,keyasint"`           // bytes of all its parts, unpacked
	State   string `cbor:"5,keyasint"`           // arriving, arrived, ready or removing
	Created int64  `cbor:"6,keyasint"`           // Unix ms of the peer's clock
	Used    int    `cbor:"7,keyasint,omitempty"` // workloads that run from it
}

// Prune is empty: remove those that no workload uses.
type Prune struct{}

// PruneReply lists what is being removed.
type PruneReply struct {
	Images []PushedImage `cbor:"1,keyasint"`
}

// FindImage asks whether a deploy of this image would find it.
type FindImage struct {
	Image  string `cbor:"1,keyasint"`
	Digest string `cbor:"2,keyasint,omitempty"`
}

// FindImageReply says so.
type FindImageReply struct {
	Here     bool `cbor:"1,keyasint,omitempty"`
	Pullable bool `cbor:"2,keyasint,omitempty"` // the registry that it names has it, as seen from there
}
