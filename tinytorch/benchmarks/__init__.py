"""Competitions in which what earlier chapters teach is put to use: chapter 20."""
