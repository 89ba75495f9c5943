-- One login and one schema per service, no grant across them. These passwords open nothing but the sandbox of docker-compose.yml.
CREATE DATABASE lastmile;
\connect lastmile
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE ROLE identity LOGIN PASSWORD 'sandbox-only';
CREATE ROLE payments LOGIN PASSWORD 'sandbox-only';
CREATE ROLE cases LOGIN PASSWORD 'sandbox-only';
CREATE SCHEMA identity AUTHORIZATION identity;
CREATE SCHEMA payments AUTHORIZATION payments;
CREATE SCHEMA cases AUTHORIZATION cases;
