package wire

import (
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

// theKnock is the knock that the answers in testdata belong to.
func theKnock(t testing.TB) Knock {
	_, a := testKey(t, 1)
	_, b := testKey(t, 2)
	for _, v := range vectorsOf(t, "testdata/knocks.txt") {
		if v.name == "knock" {
			k, err := OpenKnock(v.data, a, b)
			if err != nil {
				t.Fatal(err)
			}
			return *k
		}
	}
	t.Fatal("no knock")
	return Knock{}
}

func TestKnockVectors(t *testing.T) {
	keyA, a := testKey(t, 1)
	keyB, b := testKey(t, 2)
	knock := theKnock(t)
	vectors := vectorsOf(t, "testdata/knocks.txt")
	if len(vectors) < 15 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for _, v := range vectors {
		var again []byte
		var err error
		if strings.HasPrefix(v.name, "answer") {
			var got *Knocked
			if got, err = OpenKnocked(v.data, knock); err == nil {
				again, _ = SealKnocked(keyB, *got)
			}
		} else {
			var got *Knock
			if got, err = OpenKnock(v.data, a, b); err == nil {
				again, _ = SealKnock(keyA, *got)
			}
		}
		if v.want == "ok" {
			if err != nil {
				t.Errorf("%s: %v", v.name, err)
			} else if string(again) != string(v.data) {
				t.Errorf("%s: sealed again it is another text", v.name)
			}
			continue
		}
		if e := mesh.AsError(err); err == nil || e.Kind.String()+" "+e.Rule != v.want {
			t.Errorf("%s: %v, want %s", v.name, err, v.want)
		}
	}
	if knock.Name != "alice" || len(knock.Addrs) != 1 {
		t.Errorf("the knock reads %+v", knock)
	}
}

// The fingerprint depends on both keys and on the direction, and is as a second
// program computed it.
func TestFingerprint(t *testing.T) {
	_, a := testKey(t, 1)
	_, b := testKey(t, 2)
	_, c := testKey(t, 3)
	if got, want := Fingerprint(a, b), "fv7w-fahd-vv8n-vfvj"; got != want {
		t.Errorf("Fingerprint = %s, want %s", got, want)
	}
	if got, want := Fingerprint(b, a), "epgm-pph8-g1wg-41y6"; got != want {
		t.Errorf("the other way = %s, want %s", got, want)
	}
	if Fingerprint(a, b) == Fingerprint(a, c) || Fingerprint(a, b) == Fingerprint(c, b) {
		t.Error("it does not depend on both keys")
	}
	if PlainFingerprint("FV7W-fahd vv8n-vfvj") != PlainFingerprint(Fingerprint(a, b)) || PlainFingerprint("oOiIlL") != "001111" {
		t.Error("what a person types is not put right")
	}
}

func FuzzOpenKnock(f *testing.F) {
	_, a := testKey(f, 1)
	_, b := testKey(f, 2)
	knock := theKnock(f)
	for _, v := range vectorsOf(f, "testdata/knocks.txt") {
		f.Add(v.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := OpenKnock(data, a, b); err == nil && (k.From != a || k.To != b) {
			t.Fatalf("opened for %s to %s", k.From, k.To)
		}
		if k, err := OpenKnocked(data, knock); err == nil && (k.From != b || k.To != a || k.Nonce != knock.Nonce) {
			t.Fatalf("an answer to another knock opened: %+v", k)
		}
	})
}
