package store

import (
	"context"
	"crypto/rand"
)

// keyLife is in Meta once Renew was called; before, the incarnation that the file
// began with holds. That one stays, because the file's mark knows the file by it,
// and the two cannot change in one step.
var keyLife = []byte("life")

// Incarnation names this life of the state file: a lost file comes back with
// another one, which makes requests for the old one void.
func (s *Store) Incarnation() [16]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life
}

// Renew begins another life of the file, which voids every request that was signed
// for the one before. also runs in the same transaction.
func (s *Store) Renew(ctx context.Context, also func(*Tx) error) error {
	var next [16]byte
	rand.Read(next[:])
	err := s.Update(ctx, func(tx *Tx) error {
		if err := tx.Put(Meta, keyLife, next[:]); err != nil {
			return err
		}
		return also(tx)
	})
	if err == nil {
		s.mu.Lock()
		s.life = next
		s.mu.Unlock()
	}
	return err
}

// readLife finds the incarnation that holds now.
func (s *Store) readLife() error {
	return s.View(func(tx *Tx) error {
		s.life = s.incarnation
		if v := tx.Get(Meta, keyLife); len(v) == len(s.life) {
			copy(s.life[:], v)
		}
		return nil
	})
}
