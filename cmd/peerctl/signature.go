package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"peercompute/pkg/mesh"
)

// maxSignatureFile bounds what is read from --signature and from a public key.
const maxSignatureFile = 64 << 10

// parseSigners reads the files of public keys; "none" is no key.
func parseSigners(s string) ([]string, error) {
	files, err := parseWords(s)
	if err != nil {
		return nil, err
	}
	keys := []string{}
	for _, name := range files {
		data, err := readSmall(name, maxSignatureFile)
		if err != nil {
			return nil, err
		}
		k, err := mesh.ParseSigningKey(string(bytes.TrimSpace(data)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		keys = append(keys, k.String())
	}
	return keys, nil
}

// signers is what people see of keys.
func signers(keys []string) (out []string) {
	for _, text := range keys {
		if k, err := mesh.ParseSigningKey(text); err == nil {
			out = append(out, k.Fingerprint())
		}
	}
	return out
}

// sign puts what --signature names into the spec. An image that is not pinned is
// pinned by what was signed.
func sign(s *mesh.Spec, file string) error {
	if file == "" {
		return nil
	}
	data, err := readSmall(file, maxSignatureFile)
	if err != nil {
		return mesh.Errorf(mesh.Invalid, "cannot read the signature").Because(err)
	}
	s.Signatures, err = parseSignatures(data, s.Runtime)
	if err == nil && s.Runtime == mesh.Container && s.Digest == "" && !strings.Contains(s.Image, "@") {
		s.Digest, err = s.Signatures[0].Image()
	}
	if err != nil {
		return mesh.Errorf(mesh.Invalid, "%s holds no signature: %s", file, err).
			WithHint("of an image: cosign download signature IMAGE > FILE   of a module: cosign sign-blob --key cosign.key FILE.wasm > FILE")
	}
	return nil
}

// parseSignatures reads what cosign writes: for an image a JSON object for each
// signature, for a module the signature in base64.
func parseSignatures(data []byte, r mesh.Runtime) ([]mesh.Signature, error) {
	if r == mesh.Wasm {
		value, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(data)))
		if err == nil && len(value) == 0 {
			err = errors.New("it is empty")
		}
		return []mesh.Signature{{Value: value}}, err
	}
	var out []mesh.Signature
	digest := ""
	in := json.NewDecoder(bytes.NewReader(data))
	for {
		var one struct {
			Value string `json:"Base64Signature"`
			Text  []byte `json:"Payload"`
		}
		if err := in.Decode(&one); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		value, err := base64.StdEncoding.DecodeString(one.Value)
		if err != nil || len(value) == 0 {
			return nil, errors.New("Base64Signature is not base64")
		}
		sig := mesh.Signature{Text: one.Text, Value: value}
		named, err := sig.Image()
		switch {
		case err != nil:
			return nil, err
		case digest != "" && named != digest:
			return nil, errors.New("it is about several images")
		}
		digest = named
		if out = append(out, sig); len(out) > mesh.MaxSignatures {
			return nil, fmt.Errorf("more than %d signatures", mesh.MaxSignatures)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("it is empty")
	}
	return out, nil
}
