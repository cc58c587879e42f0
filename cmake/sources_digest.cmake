# Writes a C file with a digest of sources: SHA-256, cut to 16 bytes, of their names and texts. Ends of lines apart, so that the same
# sources give the same digest on every machine. The file is only touched where the digest has changed.
# cmake -DROOT=FOLDER -DLIST=FILE -DOUT=FILE -P sources_digest.cmake; LIST: names under ROOT, one a line.
file(STRINGS "${LIST}" names)
set(all "")
foreach(name IN LISTS names)
  file(READ "${ROOT}/${name}" text)
  string(REPLACE "\r" "" text "${text}")
  string(SHA256 digest "${text}")
  string(APPEND all "${name} ${digest}\n")
endforeach()
string(SHA256 digest "${all}")
string(SUBSTRING "${digest}" 0 32 digest)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${digest}")
file(CONFIGURE OUTPUT "${OUT}" CONTENT "#include \"cache_levels.h\"\n\nconst sfi_digest sfi_sources_digest = {{${bytes}}};\n" @ONLY)
